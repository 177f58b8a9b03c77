"""Pure rules and shared vocabulary: no I/O, no clocks but `core.clock`, nothing imported from other rooms."""
