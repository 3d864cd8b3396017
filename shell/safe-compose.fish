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
            # SUSPECT, OWN_VERBS and OWN_FLAGS of src/safe_compose/shim.py, written in by `safe-compose shell`.
            case @DOCKER_WORDS@
                command @PROGRAM@ $argv
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
                command @PROGRAM@ docker-compose $argv
                return
        end
    end
    command docker-compose $argv
end
complete --command safe-compose --wraps docker
