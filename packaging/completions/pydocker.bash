# Completion of pydocker's commands, flags and arguments in bash.
#
# Commands and flags are read from pydocker's own help, so they are always those of the installed version.

_pydocker_ask() {
    # The daemon that the command line itself names; without one there is nothing to offer.
    pydocker ${host:+-H "$host"} "$@" 2>/dev/null
}

_pydocker_help() {
    pydocker "$@" --help 2>/dev/null
}

_pydocker_spellings() {
    # One flag a line, as "-a, --all=false" or "--format TEMPLATE".
    _pydocker_help "$@" | sed -n '/^Options:/,/^$/{s/^  *-/-/;s/   .*//;/^-/p}'
}

_pydocker_flags() {
    _pydocker_spellings "$@" | grep -oE -- '(^|, )--?[a-zA-Z][a-z-]*' | tr -d ' ,'
}

_pydocker_takes_value() {
    # $1: the flag; the rest: the command.  Booleans are listed with their value, and take none of their own.
    local flag=$1
    shift
    _pydocker_spellings "$@" | grep -E -- "(^|, )$flag([ =,]|\$)" | grep -qvE -- '=(true|false)$'
}

_pydocker_containers() {
    _pydocker_ask ps "$@" --format '{{.Names}}'
}

_pydocker_images() {
    _pydocker_ask images --format '{{if ne .Repository "<none>"}}{{.Repository}}:{{.Tag}}{{else}}{{.ID}}{{end}}'
}

_pydocker() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local host="" command="" word index count=0 skip=
    COMPREPLY=()
    # Words are taken as readline splits them: "=" and ":" stand alone.
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if [[ -n $skip ]]; then
            skip=
            continue
        fi
        if [[ -z $command ]]; then
            case $word in
                -H | --host)
                    host=${COMP_WORDS[index + 1]}
                    [[ ${COMP_WORDS[index + 2]} == : ]] && host+=:${COMP_WORDS[index + 3]} && ((index += 2))
                    skip=1
                    ;;
                -*) ;;
                *) command=$word ;;
            esac
        elif [[ $word == -* && $count -eq 0 ]]; then
            _pydocker_takes_value "$word" "$command" && skip=1
        elif [[ $word != [=:] ]]; then
            ((count++))
        fi
    done

    if [[ -z $command ]]; then
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$(_pydocker_flags)" -- "$cur")
        else
            local commands
            commands=$(_pydocker_help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
            mapfile -t COMPREPLY < <(compgen -W "$commands help" -- "$cur")
        fi
        return
    fi
    if [[ $cur == -* && ($count -eq 0 || $command != @(run|create)) ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_pydocker_flags "$command")" -- "$cur")
        return
    fi

    local words=
    case $prev in
        --network | --net) words="none host bridge default" ;;
        --log-driver) words="journald json-file" ;;
        --signal | --stop-signal | -s) [[ $command == @(kill|run|create) ]] && words="HUP INT QUIT KILL USR1 USR2 TERM" ;;
        --attach | -a) [[ $command == @(run|create) ]] && words="stdin stdout stderr" ;;
        --type) words="container image" ;;
    esac
    if [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    if [[ -n $skip || ($command == import && $count -eq 0) ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
    fi
    case $command in
        attach | kill | stop) words=$(_pydocker_containers) ;;
        logs | restart | rm | start | wait) words=$(_pydocker_containers -a) ;;
        inspect) words="$(_pydocker_containers -a) $(_pydocker_images)" ;;
        images | rmi | tag) words=$(_pydocker_images) ;;
        run | create) [[ $count -eq 0 ]] && words=$(_pydocker_images) ;;
        help) words=$(_pydocker_help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p') ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    # Readline has split at the colon of a name with a tag, and expects what follows it alone.
    declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
}

complete -F _pydocker pydocker
