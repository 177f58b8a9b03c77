# shellcheck shell=bash
# bash completion of d7agent(1). It asks d7agent, which knows its options, and which asks the agent for its profiles.

_d7agent() {
    local line=${COMP_LINE:0:COMP_POINT} kind value words_before='' typed trim=''
    # Readline replaces only what follows the last of these signs in the word.
    typed=${line##*[[:space:]]}
    if [[ $COMP_WORDBREAKS == *:* && $COMP_WORDBREAKS == *=* ]]; then trim=${typed%"${typed##*[:=]}"}; fi
    COMPREPLY=()
    while IFS=$'\t' read -r kind value _; do
        case $kind in
        plain)
            COMPREPLY+=("${value#"$trim"}")
            if [[ $value == *: ]]; then compopt -o nospace; fi
            ;;
        file) compopt -o default ;;
        dir) compopt -o dirnames ;;
        command) words_before=$value ;;
        esac
    done < <(_D7AGENT_COMPLETE=lines_complete _D7AGENT_LINE=$line command d7agent 2>/dev/null </dev/null)
    if [[ $words_before ]]; then _d7agent_other_command "$words_before"; fi
}

# The words after `exec --` and `start --` are another command's: $1 of them stand before the one to complete.
_d7agent_other_command() {
    local first
    if declare -F _command_offset >/dev/null; then # of the package bash-completion
        for ((first = 1; first < COMP_CWORD; first++)); do
            if [[ ${COMP_WORDS[first]} == -- ]]; then _command_offset $((first + 1)); return; fi
        done
        _command_offset $((COMP_CWORD - $1))
    elif [[ $1 == 0 ]]; then
        mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}" | sort -u)
    else
        compopt -o default
    fi
}

complete -o nosort -F _d7agent d7agent 2>/dev/null || complete -F _d7agent d7agent
