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
        # SUSPECT, OWN_VERBS and OWN_FLAGS of src/safe_compose/shim.py, written in by `safe-compose shell`.
        @DOCKER_WORDS@) \command @PROGRAM@ "$@"; \return ;;
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
            @COMPOSE_WORDS@) \command @PROGRAM@ docker-compose "$@"; \return ;;
            esac
        done
        \command docker-compose "$@"
    }
    ;;
esac
# Completion of `docker` goes by that name and stays as it is; `safe-compose` gets the same.
if [ -n "${ZSH_VERSION-}" ]; then
    if \whence compdef >/dev/null; then compdef safe-compose=docker; fi
elif [ -n "${BASH_VERSION-}" ]; then
    function _safe_compose_complete {
        if ! \complete -p docker >/dev/null 2>&1; then
            _completion_loader docker >/dev/null 2>&1 || _comp_load docker >/dev/null 2>&1
        fi
        if _safe_compose_word=$(\complete -p docker 2>/dev/null); then
            \eval "${_safe_compose_word% docker} safe-compose" && \return 124
        fi
        \return 1
    }
    \complete -F _safe_compose_complete -o default safe-compose 2>/dev/null || \true
fi
