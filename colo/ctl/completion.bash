# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154
# Completion of coloctl for bash. Verbs and options come from coloctl's own help, names of the control interface from the
# schema (the variables _coloctl_*, which the build puts in front of this text), domains from the directory of sockets.

_coloctl_verbs()
{
    "$1" --help 2>/dev/null | sed -n '/^Subcommands:/,$s/^  \([a-z][a-z-]*\)\( .*\)\{0,1\}$/\1/p'
}

_coloctl_options()
{
    { "$1" --help; [ -z "$2" ] || "$1" "$2" --help; } 2>/dev/null |
        sed -n '/^ *-/{s/^ *\(-[^ ]*\).*/\1/;s/,/\n/g;p}' | sort -u
}

_coloctl_domains()
{
    local socket
    for socket in "$1"/*/qmp.sock; do
        [ -e "$socket" ] && basename "$(dirname "$socket")"
    done
}

# Words of the line up to the cursor, split at blanks only: readline would split at = and :, too.
_coloctl()
{
    local program=${COMP_WORDS[0]} line=${COMP_LINE:0:COMP_POINT} cur="" prev="" run_directory=/run/colo socket="" i
    local -a words=() positional=()
    read -ra words <<<"$line"
    if [[ $line != *[[:space:]] ]]; then
        cur=${words[-1]}
        unset 'words[-1]'
    fi
    COMPREPLY=()
    for ((i = 1; i < ${#words[@]}; i++)); do
        prev=""
        case ${words[i]} in
            -s | --socket | --run-directory | -o | --output | --timeout | --wait | --to | -n | --interval | -c | --count)
                prev=${words[i]}
                [[ $prev == --run-directory && -n ${words[i + 1]-} ]] && run_directory=${words[i + 1]}
                [[ $prev == -s || $prev == --socket ]] && socket=${words[i + 1]-}
                ((i++ + 1 < ${#words[@]})) && prev=""
                ;;
            -*) ;;
            *) positional+=("${words[i]}") ;;
        esac
    done
    [[ -n $socket && ${#positional[@]} -gt 0 ]] && positional=("${positional[0]}" "" "${positional[@]:1}")
    case $prev in
        -s | --socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        --run-directory) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        -o | --output) mapfile -t COMPREPLY < <(compgen -W "text json" -- "$cur") ;;
        "") _coloctl_words "$cur" ;;
    esac
}

# Positional arguments and options; the variables are those of _coloctl.
_coloctl_words()
{
    local cur=$1 verb=${positional[0]-} name=${1%%=*} candidates=""
    if [[ $cur == -* ]]; then
        candidates=$(_coloctl_options "$program" "$verb")
    elif ((${#positional[@]} == 0)); then
        candidates=$(_coloctl_verbs "$program")
    elif ((${#positional[@]} == 1)); then
        candidates=$(_coloctl_domains "$run_directory")
    else
        case $verb in
            qmp) ((${#positional[@]} == 2)) && candidates=$_coloctl_qmp_commands ;;
            jobs) ((${#positional[@]} == 2)) && candidates="pause resume cancel complete finalize dismiss" ;;
            capabilities) _coloctl_assignment "$cur" "$_coloctl_capabilities" "on off" && return ;;
            parameters) _coloctl_assignment "$cur" "$_coloctl_parameters" "${name:+${_coloctl_values[$name]-}}" && return ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$cur")
}

# NAME=VALUE: names with a = behind them, then values. Readline replaces only what follows the =.
_coloctl_assignment()
{
    if [[ $1 == *=* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$3" -- "${1#*=}")
    else
        mapfile -t COMPREPLY < <(compgen -S = -W "$2" -- "$1")
        compopt -o nospace 2>/dev/null
    fi
    return 0
}

complete -F _coloctl coloctl
