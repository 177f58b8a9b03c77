# fish completion of d7agent(1). It asks d7agent, which knows its options, and which asks the agent for its profiles.

function __d7agent_complete
    command -q d7agent; or return
    set -lx _D7AGENT_COMPLETE lines_complete
    set -lx _D7AGENT_LINE (commandline -cp | string collect)
    for line in (command d7agent 2>/dev/null </dev/null)
        set -l parts (string split \t -- $line)
        switch $parts[1]
            case plain
                printf '%s\t%s\n' $parts[2] $parts[3]
            case file
                __d7agent_paths __fish_complete_path $parts[2]
            case dir
                __d7agent_paths __fish_complete_directories $parts[2]
            case command
                __d7agent_other_command $parts[2]
        end
    end
end

# Paths as $argv[1] finds them, behind the prefix $argv[2].
function __d7agent_paths
    set -l typed (string sub --start (math (string length -- "$argv[2]") + 1) -- (commandline -ct))
    for found in ($argv[1] "$typed")
        echo -- $argv[2]$found
    end
end

# The words after `exec --` and `start --` are another command's: $argv[1] of them stand before the one to complete.
function __d7agent_other_command
    set -l words (commandline -opc)
    set -l first (math (count $words) - $argv[1] + 1)
    set -l before
    test $argv[1] -gt 0; and set before (string escape -- $words[$first..-1])
    complete --do-complete=(string join ' ' -- $before (commandline -ct))
end

complete --command d7agent --no-files --keep-order --arguments '(__d7agent_complete)'
