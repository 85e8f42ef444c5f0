# Completion for lyra in fish:  lyra --print-completion-script fish > ~/.config/fish/completions/lyra.fish

function __lyra_complete
    set -l before (commandline --tokenize --cut-at-cursor --current-process)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l found ($before[1] --complete -- $before "$current" 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path "$current" # where nothing is offered
    end
end

complete --command lyra --no-files --keep-order --arguments '(__lyra_complete)'
