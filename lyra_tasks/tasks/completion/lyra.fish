# Completion for lyra in fish:  lyra --print-completion-script fish > ~/.config/fish/completions/lyra.fish

function __lyra_complete
    set -l previous (commandline --tokenize --cut-at-cursor --current-process)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l candidates ($previous[1] --complete -- $previous "$current" 2>/dev/null)
    if test (count $candidates) -gt 0
        printf '%s\n' $candidates
    else
        __fish_complete_path "$current" # without candidates
    end
end

complete --command lyra --no-files --keep-order --arguments '(__lyra_complete)'
