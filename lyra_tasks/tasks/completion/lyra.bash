# Completion for lyra and ./inv in bash:  eval "$(lyra --print-completion-script bash)"  in ~/.bashrc

_lyra() {
    local candidate current=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=()
    while IFS= read -r candidate; do
        case $current in
        [\"\']*) candidate=${current:0:1}$candidate${current:0:1} ;;
        *) printf -v candidate %q "$candidate" ;;
        esac
        # bash splits --name=value and replaces only the part after the =
        [[ ${COMP_WORDS[COMP_CWORD]} == '=' || ${COMP_WORDS[COMP_CWORD - 1]} == '=' ]] && candidate=${candidate#*=}
        COMPREPLY+=("$candidate")
    done < <("${COMP_WORDS[0]}" --complete -- "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null)
}

# without candidates, complete files
complete -o default -o nosort -F _lyra lyra inv
