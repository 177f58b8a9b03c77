# shellcheck shell=sh
# d7agent.sh: access tokens for shell scripts, for POSIX sh (dash, busybox), bash and zsh. Source it:
#
#   . /usr/share/d7agent/d7agent.sh        # installed as share/d7agent/d7agent.sh below the installation's prefix
#
#   d7_token  [-v NAME] [PROFILE]          prints the access token, or sets the variable NAME to it
#   d7_header [-v NAME] [PROFILE]          the same with "Authorization: Bearer " before it
#   d7_curl   [ARGUMENT...]                runs curl with that header, for the profile $D7AGENT_PROFILE
#
# The token comes from the always-fresh file that d7agent keeps for you, and no process is started for it (with -v not even
# a subshell). The profile needs a sink of format "env":
#
#   [[sinks]]
#   path = "%t/d7agent/default.env"        # PROFILE.env; for a system agent this is /run/d7agent/default.env
#
# Without a good file there, `d7agent token` is asked; its exit status is then yours. The file is looked for as
# $D7AGENT_ENV_FILE (if no PROFILE is given), else ${XDG_RUNTIME_DIR:-/run}/d7agent/PROFILE.env; PROFILE is $D7AGENT_PROFILE
# if you name none, and else "default".
#
# What an agent that died left behind is not used: the file says in which boot it was written, and until when it is good.
#
# d7_curl hands the header over on descriptor 9, so that the token is in no argument list, and uses 8 for its own ends. If D7
# answers 401 with one of its token codes, the token is reported (`d7agent reject`) and the call made once more with another
# one, unless what it sends cannot be sent twice (it comes from stdin or a pipe, or a file named by -K says what it is), or
# another part of it has been answered already. To be able to do so it holds the answer back until it is whole.
#
# All names of these functions begin with _d7_; they work under `set -eu`, leave `set -x` blind to the token, and never export it.

d7_token() {
    [ -z "${ZSH_VERSION-}" ] || emulate -L sh
    { _d7_flags=$-; set +ax; } 2>/dev/null
    if _d7_give '' "$@"; then _d7_status=0; else _d7_status=$?; fi
    _d7_clean
    return "$_d7_status"
}

d7_header() {
    [ -z "${ZSH_VERSION-}" ] || emulate -L sh
    { _d7_flags=$-; set +ax; } 2>/dev/null
    if _d7_give 'Authorization: Bearer ' "$@"; then _d7_status=0; else _d7_status=$?; fi
    _d7_clean
    return "$_d7_status"
}

# A subshell: its variables, traps and options are its own.
d7_curl() (
    [ -z "${ZSH_VERSION-}" ] || emulate sh
    { set +aeux; } 2>/dev/null
    unset _d7_token
    { true 8<&0; } 2>/dev/null || exec </dev/null
    _d7_find || exit
    _d7_dir=''
    if ! _d7_scratch; then
        _d7_call '' '' "$@"
        exit
    fi
    trap 'command rm -rf "$_d7_dir"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if ! _d7_repeatable "$@"; then
        _d7_call "$_d7_dir/head" '' "$@"
        _d7_status=$?
        if _d7_refused "$_d7_dir/head" ''; then _d7_reject; fi
        exit "$_d7_status"
    fi
    _d7_quiet=-sS # as curl itself keeps quiet where it writes to a terminal
    [ -t 1 ] || _d7_quiet=''
    _d7_call "$_d7_dir/head" "$_d7_quiet" "$@" >"$_d7_dir/body"
    _d7_status=$?
    if _d7_refused "$_d7_dir/head" "$_d7_dir/body" && _d7_replace; then
        _d7_call '' '' "$@"
        exit
    fi
    command cat "$_d7_dir/body"
    exit "$_d7_status"
)

# _d7_give PREFIX [-v NAME] [PROFILE]: print the token behind the prefix, or set NAME to that.
_d7_give() {
    unset _d7_token
    _d7_prefix=$1 _d7_name=''
    shift
    if [ "${1-}" = -v ]; then
        _d7_name=${2-}
        case $_d7_name in
        '' | [0-9]* | *[!A-Za-z0-9_]* | _d7_*)
            _d7_complain "-v wants the name of a variable" "d7_token -v TOKEN"
            return 2
            ;;
        esac
        shift 2
    fi
    if [ $# -gt 1 ]; then
        _d7_complain "one profile at most, not $#" "d7_token [-v NAME] [PROFILE]"
        return 2
    fi
    _d7_find "$@" || return
    if [ -n "$_d7_name" ]; then
        eval "$_d7_name=\$_d7_prefix\$_d7_token"
    else
        printf '%s%s\n' "$_d7_prefix" "$_d7_token"
    fi
}

# _d7_find [PROFILE]: sets _d7_token, and _d7_profile to the name that was given ('' for none).
_d7_find() {
    if [ -n "${1-}" ]; then
        _d7_profile=$1 _d7_file=''
    else
        _d7_profile=${D7AGENT_PROFILE-} _d7_file=${D7AGENT_ENV_FILE-}
    fi
    case $_d7_profile in
    [_-]* | *[!a-z0-9_-]*)
        _d7_complain "$_d7_profile is no profile's name" "a-z, 0-9, _ and -, the first a letter or digit"
        return 2
        ;;
    esac
    _d7_read "${_d7_file:-${XDG_RUNTIME_DIR:-/run}/d7agent/${_d7_profile:-default}.env}" || _d7_ask
}

# _d7_read FILE: sets _d7_token from an always-fresh file, if the agent that wrote it can still be believed.
_d7_read() {
    _d7_token='' _d7_boot='' _d7_before=''
    [ -f "$1" ] || return 1
    {
        while IFS= read -r _d7_line; do
            case $_d7_line in
            D7_API_TOKEN=*) _d7_token=${_d7_line#*=} ;;
            D7_TOKEN_BOOT_ID=*) _d7_boot=${_d7_line#*=} ;;
            D7_TOKEN_USE_BEFORE=*) _d7_before=${_d7_line#*=} ;;
            esac
        done <"$1"
    } 2>/dev/null || return 1
    case $_d7_before in '' | *[!0-9]*) return 1 ;; esac
    [ -n "$_d7_token" ] && [ -n "$_d7_boot" ] || return 1
    # A shell does not live through a reboot: the boot id is read once.
    [ -n "${_d7_boot_id-}" ] || { IFS= read -r _d7_boot_id </proc/sys/kernel/random/boot_id; } 2>/dev/null || return 1
    [ "$_d7_boot" = "$_d7_boot_id" ] || return 1
    { IFS='. ' read -r _d7_up _d7_line </proc/uptime; } 2>/dev/null || return 1
    [ "$((_d7_up + 5))" -lt "$_d7_before" ] 2>/dev/null # seconds; 5, so that it does not die on the way
}

# The long way: sets _d7_token to what `d7agent token` prints.
_d7_ask() {
    if [ -n "$_d7_profile" ]; then
        _d7_token=$(command d7agent token -p "$_d7_profile") || return
    else
        _d7_token=$(command d7agent token) || return
    fi
    [ -n "$_d7_token" ]
}

# _d7_call HEAD QUIET ARGUMENT...: curl, with our header on descriptor 9 and the caller's own stdin. HEAD: a file for D7's
# headers, or ''; QUIET: an option, or ''. The caller's options come later, and so win.
_d7_call() {
    _d7_head=$1 _d7_option=$2 _d7_first=''
    shift 2
    case ${1-} in -q | --disable) _d7_first=$1 && shift ;; esac # curl takes it in the first place only
    [ -z "$_d7_head" ] || set -- -D "$_d7_head" --suppress-connect-headers "$@"
    [ -z "$_d7_option" ] || set -- "$_d7_option" "$@"
    set -- -H @/dev/fd/9 "$@"
    [ -z "$_d7_first" ] || set -- "$_d7_first" "$@"
    {
        printf 'Authorization: Bearer %s\n' "$_d7_token" | command curl "$@" 9<&0 0<&8 8<&-
    } 8<&0
}

# _d7_repeatable ARGUMENT...: whether all that curl sends can be sent twice.
_d7_repeatable() {
    for _d7_arg in "$@"; do
        case $_d7_arg in
        - | . | -T- | -T. | *@- | *@-\;* | *\<- | *\<-\;* | */dev/stdin* | */dev/fd/* | */proc/self/fd/*) return 1 ;;
        -K* | --config*) return 1 ;;
        *@*) [ ! -p "${_d7_arg##*@}" ] || return 1 ;;
        *) [ ! -p "$_d7_arg" ] || return 1 ;;
        esac
    done
}

# Sets _d7_dir to a folder of our own, in memory where possible.
_d7_scratch() {
    for _d7_place in "${XDG_RUNTIME_DIR:-/run}" "${TMPDIR:-/tmp}"; do
        _d7_dir=$(command mktemp -d "$_d7_place/d7agent.XXXXXX" 2>/dev/null) && return
    done
    return 1
}

# _d7_refused HEAD BODY: whether D7 answered 401, and that alone, and did not say that it was for another reason than the token.
_d7_refused() {
    [ -s "$1" ] || return 1
    _d7_last=''
    while IFS=' ' read -r _d7_line _d7_code _d7_rest; do
        case $_d7_line in HTTP/*) ;; *) continue ;; esac
        case $_d7_code in
        401*) _d7_last=401 ;;
        1* | 3*) ;;
        *) return 1 ;; # something was done: it is not to be done twice
        esac
    done <"$1"
    [ "$_d7_last" = 401 ] || return 1
    [ -s "$2" ] || return 0
    _d7_last=0 # the body may have gone elsewhere, and then only what -w printed is here
    while IFS= read -r _d7_line || [ -n "$_d7_line" ]; do
        case $_d7_line in
        *ACCESS_TOKEN_*) return 0 ;;
        *'"detail"'*) _d7_last=1 ;;
        esac
    done <"$2"
    return "$_d7_last"
}

# Reports the token; returns when the agent has an answer to that.
_d7_reject() {
    if [ -n "$_d7_profile" ]; then set -- -p "$_d7_profile"; else set --; fi
    printf '%s\n' "$_d7_token" | command d7agent reject "$@" >/dev/null
}

# Reports the token and sets _d7_token to another one, if there is one.
_d7_replace() {
    _d7_old=$_d7_token
    _d7_reject && _d7_ask && [ "$_d7_token" != "$_d7_old" ]
}

_d7_complain() {
    printf 'd7agent: error: %s\nd7agent: hint: %s\n' "$1" "$2" >&2
}

# What the caller's shell is left with: the boot id and a status, no token.
_d7_clean() {
    unset _d7_token _d7_prefix _d7_name _d7_profile _d7_file _d7_boot _d7_before _d7_line _d7_up
    case $_d7_flags in *a*) set -a ;; esac
    case $_d7_flags in *x*) set -x ;; esac
}
