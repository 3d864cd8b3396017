# Evaluated by bash and zsh: eval "$(safe-compose shell bash)"
# Words that cannot matter go straight to docker, inside this shell: no process of ours is started for them.
# Backslashes and `function` keep aliases out; nothing here minds `set -eu` or `emulate sh`.
function docker {
    \local _safe_compose_word
    case ${1-} in
    __complete | __completeNoDesc | docker-cli-plugin-*) \command docker "$@"; \return ;;
    esac
    for _safe_compose_word in "$@"; do
        case $_safe_compose_word in
        # SUSPECT, OWN_VERBS and OWN_FLAGS of src/safe_compose/fastpath, written in by `safe-compose shell`.
        @DOCKER_WORDS@)
            if [ -x @PROGRAM@ ]; then
                \command @PROGRAM@ docker "$@"
            else
                \printf '%s\n' 'safe-compose: it was removed, and docker runs unguarded' >&2
                \command docker "$@"
            fi
            \return ;;
        esac
    done
    \command docker "$@"
}
# With `set -o posix` bash allows no such name; PATH then decides.
case ":${SHELLOPTS-}:" in
*:posix:*) ;;
*)
    function docker-compose {
        \local _safe_compose_word
        for _safe_compose_word in "$@"; do
            case $_safe_compose_word in
            @COMPOSE_WORDS@)
                if [ -x @PROGRAM@ ]; then
                    \command @PROGRAM@ docker-compose "$@"
                else
                    \printf '%s\n' 'safe-compose: it was removed, and docker-compose runs unguarded' >&2
                    \command docker-compose "$@"
                fi
                \return ;;
            esac
        done
        \command docker-compose "$@"
    }
    ;;
esac
# Where it is not on PATH, this shell finds it all the same.
if ! \command -v safe-compose >/dev/null 2>&1; then
    case ":${SHELLOPTS-}:" in
    *:posix:*) ;;
    *) function safe-compose { \command @PROGRAM@ "$@"; } ;;
    esac
fi
# Completion of `docker` goes by that name and stays as it is. `safe-compose` completes its own verbs, and all else as docker.
if [ -n "${ZSH_VERSION-}" ]; then
    function _safe_compose_complete {
        if (( CURRENT > 2 )); then
            case ${words[2]} in
            @VERBS@) ;;
            *) words[1]=docker; _normal; \return ;;
            esac
        fi
        \emulate -L zsh
        \local -a lines
        lines=("${(@f)$(\command @PROGRAM@ __completeNoDesc "${(@)words[2,CURRENT]}" 2>/dev/null)}")
        \local end=${lines[-1]}
        lines=("${(@)lines[1,-2]}")
        (( $#lines )) && compadd -- "${(@)lines}"
        [[ $end == :0 ]] && _files
    }
    if \whence compdef >/dev/null; then compdef _safe_compose_complete safe-compose; fi
elif [ -n "${BASH_VERSION-}" ]; then
    function _safe_compose_complete {
        \local line typed=${COMP_WORDS[COMP_CWORD]}
        COMPREPLY=()
        case $((COMP_CWORD > 1)):${COMP_WORDS[1]-} in
        0:* | @BASH_VERBS@)
            while IFS= \read -r line; do
                case $line in
                :0) \compopt -o default; \break ;;
                :*) \break ;;
                *) \printf -v line %q "$line"; COMPREPLY+=("$line") ;;
                esac
            done <<<"$(\command @PROGRAM@ __completeNoDesc "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)"
            \return 0 ;;
        esac
        if ! \complete -p docker >/dev/null 2>&1; then
            _completion_loader docker >/dev/null 2>&1 || _comp_load docker >/dev/null 2>&1
        fi
        if line=$(\complete -p docker 2>/dev/null); then
            line=${line#*-F }
            "${line%% *}" docker "$typed" "${COMP_WORDS[COMP_CWORD-1]}"
        fi
    }
    \complete -F _safe_compose_complete safe-compose 2>/dev/null || \true
fi
