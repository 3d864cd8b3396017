# Evaluated by fish: safe-compose shell fish | source
# Words that cannot matter go straight to docker, inside this shell: no process of ours is started for them.
function docker --wraps docker --description 'docker, with safe-compose before what deletes volumes'
    switch "$argv[1]"
        case __complete __completeNoDesc 'docker-cli-plugin-*'
            command docker $argv
            return
    end
    set -l _safe_compose_word
    for _safe_compose_word in $argv
        switch "$_safe_compose_word"
            # SUSPECT, OWN_VERBS and OWN_FLAGS of src/safe_compose/fastpath, written in by `safe-compose shell`.
            case @DOCKER_WORDS@
                if test -x @PROGRAM@
                    command @PROGRAM@ docker $argv
                else
                    echo 'safe-compose: it was removed, and docker runs unguarded' >&2
                    command docker $argv
                end
                return
        end
    end
    command docker $argv
end
function docker-compose --wraps docker-compose --description 'docker-compose, with safe-compose before what deletes volumes'
    set -l _safe_compose_word
    for _safe_compose_word in $argv
        switch "$_safe_compose_word"
            case @COMPOSE_WORDS@
                if test -x @PROGRAM@
                    command @PROGRAM@ docker-compose $argv
                else
                    echo 'safe-compose: it was removed, and docker-compose runs unguarded' >&2
                    command docker-compose $argv
                end
                return
        end
    end
    command docker-compose $argv
end
# Where it is not on PATH, this shell finds it all the same.
if not command -q safe-compose
    function safe-compose
        command @PROGRAM@ $argv
    end
end
function __safe_compose_is_own
    set -l words (commandline -opc)
    test (count $words) -le 1; or contains -- $words[2] @VERBS@
end
function __safe_compose_candidates
    set -l words (commandline -opc)
    command @PROGRAM@ __complete $words[2..-1] (commandline -ct) 2>/dev/null | string match --invert --regex '^:[0-9]+$'
end
complete --command safe-compose --wraps docker
complete --command safe-compose --condition __safe_compose_is_own --arguments '(__safe_compose_candidates)'
