# Completion for lyra and ./inv in zsh:  eval "$(lyra --print-completion-script zsh)"  in ~/.zshrc, after compinit

_lyra() {
    local -a candidates
    candidates=("${(@f)$("${words[1]}" --complete -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n ${candidates[1]} ]]; then
        compadd -V lyra -- "${candidates[@]}"
    else
        _files # without candidates
    fi
}

compdef _lyra lyra inv
