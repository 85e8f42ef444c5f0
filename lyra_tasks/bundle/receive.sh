#!/bin/sh
# Checks the bundle or pack in its own directory and loads the images into the Docker engine. Deploys nothing.
# Needs sh, coreutils and docker, and ssh-keygen to verify a signature. Needs no network.
# The last line calls main, so that a truncated copy does nothing.

set -u
# These would query a registry for signatures, or select another platform than the engine's own.
unset CDPATH DOCKER_CONTENT_TRUST DOCKER_DEFAULT_PLATFORM
export LC_ALL=C

# >>> written by promote
project='example'
compose_project='example'
version='0.0.0'
# Platforms that all images exist for.
platforms='linux/amd64'
min_engine='20.10'
# The version whose layers a pack omits, or nothing.
since=''
# Per platform: platform, archive with all images for it, bytes of the archive.
archives='
linux/amd64 images/example-0.0.0-linux-amd64.tar 0
'
# Per platform and image whose layers a pack omits: platform, reference, config digest, manifest digest.
required='
'
# Per platform and image: platform, bytes of its unpacked layers, config digest, manifest digest, references.
images='
linux/amd64 0 sha256:0 sha256:1 example/web:0.0.0
'
# <<< written by promote

newline='
'
tab=$(printf '\t') return=$(printf '\r')
allowed_signers='' signer='' revoked='' allow_older=no
container='' has_env_file=no is_new=no missing=no needed=0

usage() {
    cat <<'END'
usage: sh receive.sh [--allowed-signers FILE --signer NAME [--revoked FILE]] [--allow-older]

Checks every file of the bundle or pack and the engine, loads the images and verifies the loaded images. Can be run
again at any time; loaded images are not loaded again. Deploys and starts nothing.

  --allowed-signers FILE  trusted keys in ssh-keygen's format; must not come with the bundle
  --signer NAME           the principal in FILE who must have signed SHA256SUMS
  --revoked FILE          revoked keys (ssh-keygen -Y verify -r)
  --allow-older           load this version even if a newer one is loaded
  --help                  show this help

Exit codes, and the first word on stderr; 3 and 3x concern this node, 6 and 6x the copied files:
  0    all images are loaded and verified
  2    usage
  3    engine: not running, too old, another platform or an error; or a tool is missing
  30   no-space: not enough space on the engine's disk
  31   incomplete: this node lacks layers that a pack omits; the message says what to copy
  6    corrupt: a file is missing or changed: copy it again; or extra: move it out of the bundle
  60   refused: not signed by NAME, older than a loaded version, or loaded with other content
  130  interrupted
END
}

info() { printf '%s\n' "$*"; }

fail() { # CODE KIND TEXT
    code=$1 kind=$2
    shift 2
    printf 'receive.sh: %s: %s\n' "$kind" "$*" >&2
    exit "$code"
}

# ------------------------------------------------------------------------------------------------------ command line

parse_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --allowed-signers | --signer | --revoked)
            [ -n "${2-}" ] || fail 2 usage "$1 needs a value"
            case $1 in
            --allowed-signers) allowed_signers=$2 ;;
            --signer) signer=$2 ;;
            --revoked) revoked=$2 ;;
            esac
            shift
            ;;
        --allow-older) allow_older=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) fail 2 usage "Unknown option $1; see --help" ;;
        esac
        shift
    done
    case ${allowed_signers:+files}${signer:+name} in
    files | name) fail 2 usage "--allowed-signers and --signer must be given together" ;;
    '') [ -z "$revoked" ] || fail 2 usage "--revoked needs --allowed-signers and --signer" ;;
    esac
}

require_tools() {
    for tool in cat df dirname head realpath sha256sum sort tail docker ${signer:+ssh-keygen}; do
        command -v "$tool" >/dev/null 2>&1 || fail 3 engine "$tool is not installed or not on PATH"
    done
}

# --------------------------------------------------------------------------------------------------------- the files

trusted_file() { # FILE: print its absolute path; refuse a file that came with the bundle
    case $1 in
    /*) path=$1 ;;
    *) path=./$1 ;; # busybox's realpath does not support --
    esac
    path=$(realpath "$path" 2>/dev/null) && [ -f "$path" ] || fail 2 usage "$1 is not a file"
    case $path in
    "$bundle"/*) fail 60 refused "$1 came with the bundle; get the trusted keys from elsewhere" ;;
    esac
    printf '%s\n' "$path"
}

require_sums() {
    [ -f SHA256SUMS ] && [ ! -L SHA256SUMS ] || fail 6 corrupt "SHA256SUMS is missing beside this script"
}

verify_signature() {
    if [ -z "$signer" ]; then
        info "Signature not checked; add --allowed-signers FILE --signer NAME"
        return
    fi
    require_sums
    [ -f SHA256SUMS.sig ] && [ ! -L SHA256SUMS.sig ] || fail 60 refused "the bundle is not signed"
    set -- -f "$allowed_signers" -I "$signer" -n lyra-promotion -s SHA256SUMS.sig
    answer=$(ssh-keygen -Y verify "$@" <SHA256SUMS 2>&1) ||
        fail 60 refused "not signed by $signer: $(printf '%s' "$answer" | head -n 1)"
    # A second run, since ssh-keygen does not tell a revoked key from a bad signature.
    [ -z "$revoked" ] || ssh-keygen -Y verify "$@" -r "$revoked" <SHA256SUMS >/dev/null 2>&1 ||
        fail 60 refused "$revoked revokes the key of $signer, or is not in ssh-keygen's format"
    info "Signed by $signer"
}

list_files() { # DIRECTORY: print every name below it, one per line
    for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        case $entry in
        *"$newline"*)
            printf '%s\n' "${entry%%"$newline"*} and a line break"
            continue
            ;;
        esac
        if [ -L "$entry" ]; then
            printf '%s is a link\n' "$entry"
        elif [ -d "$entry" ]; then
            list_files "$entry"
        elif [ -f "$entry" ]; then
            printf '%s\n' "$entry"
        elif [ -e "$entry" ]; then
            printf '%s is not a file\n' "$entry"
        fi
    done
}

verify_files() {
    require_sums
    listed=$newline problems='' extras=''
    while IFS= read -r line || [ -n "$line" ]; do
        sum=${line%%  *} name=${line#*  }
        listed=$listed./$name$newline
        case /$name/ in
        *//* | */./* | */../*)
            problems="$problems$newline  $name: invalid file name"
            continue
            ;;
        esac
        if [ -L "$name" ] || [ ! -f "$name" ]; then
            problems="$problems$newline  $name: missing"
            continue
        fi
        digest=$(sha256sum <"$name") || digest=''
        [ "${digest%% *}" = "$sum" ] || problems="$problems$newline  $name: changed"
    done <SHA256SUMS
    case $listed in
    *"$newline./manifest.json$newline"*)
        [ ! -f pack.json ] || fail 6 corrupt "SHA256SUMS is that of documents.tar.gz, which was unpacked into the pack" \
            "${newline}Copy SHA256SUMS, SHA256SUMS.sig and PROMOTION.md again, and unpack the documents elsewhere"
        ;;
    esac
    present=$(list_files .)
    while IFS= read -r name; do
        case $name in ./SHA256SUMS | ./SHA256SUMS.sig) continue ;; esac
        case $listed in
        *"$newline$name$newline"*) continue ;;
        esac
        case $name in
        ./deploy/.env) has_env_file=yes ;; # checked when it is known whether the version is loaded
        *) extras="$extras$newline  ${name#./}: extra" ;;
        esac
    done <<END
$present
END
    [ -z "$problems" ] || problems="${newline}Copy these again, and only these:$problems"
    [ -z "$extras" ] || extras="${newline}Move these out of the bundle, or remove them:$extras"
    [ -z "$problems$extras" ] || fail 6 corrupt "files differ from what was promoted$problems$extras"
    info "All files are intact"
}

# -------------------------------------------------------------------------------------------------------- the engine

check_engine() {
    answer=$(docker version --format '{{.Server.Version}} {{.Server.Os}}/{{.Server.Arch}}' 2>&1 </dev/null) ||
        fail 3 engine "not responding: $answer"
    answer=${answer##*"$newline"} # warnings of docker come first
    engine_version=${answer%% *} system=${answer##* }
    is_supported=no
    for platform in $platforms; do
        ! is_own_platform "$platform" || is_supported=yes
    done
    [ "$is_supported" = yes ] || fail 3 engine "runs $system, but the images are for $platforms"
    number=${engine_version%%[!0-9.]*}
    lowest=$(printf '%s\n%s\n' "$number" "$min_engine" | sort -t . -k 1,1n -k 2,2n -k 3,3n | head -n 1)
    [ "$lowest" = "$min_engine" ] ||
        fail 3 engine "version $engine_version is too old; the bundle needs $min_engine or newer"
    info "Docker Engine $engine_version on $system"
}

is_own_platform() { # PLATFORM: is it the engine's?
    case $1 in
    "$system" | "$system"/*) return 0 ;;
    *) return 1 ;;
    esac
}

version_key() { # VERSION: print text that sorts by semantic precedence, without build metadata
    rest=${1%%[+_]*}
    core=${rest%%-*} key=''
    pre=${rest#"$core"}
    set -f
    IFS=.
    for number in $core; do
        key=$key$(number_key "$number")
    done
    if [ -z "$pre" ]; then
        key="$key~"
    else
        for part in ${pre#-}; do
            case $part in
            *[!0-9]*) key="$key!9$part" ;;
            *) key="$key!$(number_key "$part")" ;;
            esac
        done
    fi
    unset IFS
    set +f
    printf '%s\n' "$key"
}

number_key() { # DIGITS: print their count first, so that longer numbers sort last
    printf '0%03d%s' "${#1}" "$1"
}

is_version() { # TAG: is it a full version, not 1.2 or latest?
    case ${1%%[-_]*} in
    *[!0-9.]* | .* | *. | *..* | *.*.*.*) return 1 ;;
    *.*.*) return 0 ;;
    *) return 1 ;;
    esac
}

require_not_older() { # REPOSITORY: refuse if a newer version of it is loaded
    tags=$(docker image ls --format '{{.Tag}}' "$1" </dev/null) || fail 3 engine "cannot list the images of $1"
    own=$(version_key "$version")
    for tag in $tags; do
        is_version "$tag" || continue
        key=$(version_key "$tag")
        if [ "$(printf '%s\n%s\n' "$key" "$own" | sort | tail -n 1)" != "$own" ]; then
            fail 60 refused "$1:$tag is loaded and newer than $version; add --allow-older to load it anyway"
        fi
    done
}

is_version_loaded() { # CONFIG MANIFEST REFERENCE...: is the first, immutable reference loaded?
    index=''
    id=$(docker image inspect --format '{{.Id}}' "$3" 2>/dev/null </dev/null) || {
        is_new=yes
        return 1
    }
    is_promoted "$1" "$2" || has_config "$1" ||
        fail 60 refused "$3 is loaded as $id, but promoted was $1 (config) or $2 (manifest)"
    index=$id
}

is_promoted() { # CONFIG MANIFEST: is it the ID? Classic stores use the config digest, containerd the manifest digest.
    [ "$id" = "$1" ] || [ "$id" = "$2" ] || [ "$id" = "$index" ]
}

has_config() { # CONFIG: is it that of the only image? From a registry, containerd may have an index with another ID.
    case $(docker image save "$id" 2>/dev/null </dev/null | tar -xOf - manifest.json 2>/dev/null) in
    *'"Config"'*'"Config"'*) return 1 ;;
    *'"Config":"'*"${1#sha256:}"*) return 0 ;;
    *) return 1 ;;
    esac
}

is_complete() { # REFERENCE: can a container be created? Only this detects a missing layer.
    answer=$(docker create --pull never --network none "$1" true 2>&1 </dev/null) || return 1
    container=${answer##*"$newline"}
    remove_container
}

remove_container() {
    [ -z "$container" ] || docker rm --volumes "$container" >/dev/null 2>&1 </dev/null
    container=''
}

are_tagged() { # CONFIG MANIFEST REFERENCE...: do all refer to it? Another version takes floating tags, like latest.
    config=$1 manifest=$2
    shift 2
    ids=$(docker image inspect --format '{{.Id}}' "$@" 2>/dev/null </dev/null) || return
    for id in $ids; do
        is_promoted "$config" "$manifest" || return
    done
}

# ------------------------------------------------------------------------------------------------------------ loading

each_line() { # COMMAND TABLE: call it with the fields of each line for the engine's platform, except the platform
    while read -r platform line; do
        [ -n "$platform" ] || continue
        is_own_platform "$platform" || continue
        # shellcheck disable=SC2086  # fields are arguments
        "$1" $line || return
    done <<END
$2
END
}

plan_image() { # BYTES CONFIG MANIFEST REFERENCE...: must it be loaded?
    bytes=$1
    shift
    [ "$allow_older" = yes ] || require_not_older "${3%:*}"
    if is_version_loaded "$@" && is_complete "$3"; then
        info "$3 is already loaded"
    else
        missing=yes needed=$((needed + bytes))
    fi
}

check_env_file() { # accept the one of an operator, which can only exist if the version has been loaded before
    [ "$has_env_file" = yes ] || return 0
    [ "$is_new" = no ] ||
        fail 6 corrupt "files differ from what was promoted" \
            "${newline}Move this out of the bundle, and back when the images are loaded:$newline  deploy/.env: extra"
    info "Ignoring your deploy/.env, which is not part of the bundle"
}

require_image() { # REFERENCE CONFIG MANIFEST: a store may load a layer without those below it, but cannot run it
    id=$1
    is_complete "$2" || is_complete "$3" || { has_config "$2" && is_complete "$1"; } || fail_incomplete "$1"
}

fail_incomplete() { # REFERENCE: say what to copy
    versions=''
    for tag in $(docker image ls --format '{{.Tag}}' "${1%:*}" </dev/null); do
        ! is_version "$tag" || versions="$versions $tag"
    done
    fail 31 incomplete "this pack omits layers of $1, but the engine does not have that image." \
        "Nothing was loaded. Copy all of $version (bundle.pack without --since)," \
        "or a pack since a loaded version:${versions:- none}"
}

add_archive() { # ARCHIVE BYTES: the engine stores it while it loads it
    needed=$((needed + $2))
}

check_space() {
    root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null </dev/null) || root=''
    free=$(free_kib "$root")
    if [ -z "$free" ]; then
        info "Free space not checked: the engine's directory is not visible from here"
    elif [ $((needed / 1024)) -gt "$free" ]; then
        fail 30 no-space "$root has $free KiB free, but the images need $((needed / 1024)) KiB"
    fi
}

free_kib() { # DIRECTORY: print nothing if it does not exist
    [ -d "$1" ] || return 0
    previous=''
    for field in $(df -Pk -- "$1" 2>/dev/null | tail -n 1); do
        case $field in
        [0-9]*%) printf '%s\n' "$previous" ;;
        esac
        previous=$field
    done | tail -n 1
}

load_archive() { # ARCHIVE BYTES
    info "Loading $1"
    answer=$(read_archive "$1" | docker load --quiet 2>&1) && return
    case $answer in
    *'no space left'*) fail 30 no-space "$1: $answer" ;;
    *) fail 3 engine "cannot load $1: $answer" ;;
    esac
}

tag_image() { # BYTES CONFIG MANIFEST REFERENCE...: let floating tags refer to it again, for which nothing is loaded
    shift
    is_version_loaded "$@" && are_tagged "$@" && return
    version_reference=$3
    shift 3
    for reference; do
        answer=$(docker tag "$version_reference" "$reference" 2>&1 </dev/null) ||
            fail 3 engine "cannot tag $version_reference as $reference: $answer"
    done
    info "$* refer to $version_reference again"
}

verify_image() { # BYTES CONFIG MANIFEST REFERENCE...
    shift
    { is_version_loaded "$@" && are_tagged "$@" && is_complete "$3"; } ||
        fail 3 engine "$3 is not complete after loading: ${answer:-no output}"
    info "$3 is loaded and verified"
}

load_images() { # all of them, since one archive has them all
    each_line require_image "$required"
    each_line add_archive "$archives"
    check_space
    each_line load_archive "$archives"
    each_line verify_image "$images"
}

read_archive() { # ARCHIVE: print its bytes, from one file or from its parts in order
    if [ -f "$1" ]; then
        cat -- "$1"
    else
        cat -- "$1".[0-9][0-9][0-9]
    fi
}

# ---------------------------------------------------------------------------------------------------------- what next

print_next_steps() { # never change a file; an .env may contain secrets, so that values are not printed
    find_running
    info
    info "Next, in $bundle/deploy:"
    if [ -f deploy/.env ]; then
        print_open 'your .env' deploy/.env
    elif [ -f "$running/.env" ]; then
        info "  cp -p $(quote "$running/.env") .env"
        print_open 'that .env' "$running/.env"
    else
        info "  cp .env.example .env && chmod 600 .env"
        print_open '.env' deploy/.env.example
    fi
    [ ! -f "$running/.env.example" ] || print_changes "$running/.env.example"
    info "  docker compose up --detach --wait"
    info "See PROMOTION.md for details."
    for documents in documents.tar.gz documents.tar.gz.001; do
        [ -f "$documents" ] || continue
        # Beside the pack, since they include the checksums of the bundle that it was made of.
        info "Evidence and changes, in $bundle:"
        info "  mkdir ../$project-$version-documents"
        info "  cat documents.tar.gz* | tar -xzf - -C ../$project-$version-documents"
    done
}

quote() { # TEXT: print it as one word for a shell
    rest=$1 quoted=''
    case $rest in
    '' | *[!A-Za-z0-9_./:@%+,=-]*) ;;
    *)
        printf '%s\n' "$rest"
        return
        ;;
    esac
    while :; do
        case $rest in *\'*) ;; *) break ;; esac
        quoted=$quoted${rest%%\'*}"'\\''" rest=${rest#*\'}
    done
    printf "'%s'\n" "$quoted$rest"
}

find_running() { # set running to the deploy directory of another version whose containers are here, or to nothing
    label=com.docker.compose.project
    running=$(docker ps --all --filter "label=$label=$compose_project" \
        --format "{{.Label \"$label.working_dir\"}}" 2>/dev/null </dev/null | head -n 1) || running=''
    case $running in
    /*) [ "$running" != "$bundle/deploy" ] || running='' ;;
    *) running='' ;;
    esac
    running=${running:-/dev/null} # where no file exists
}

print_open() { # NAME FILE: print what .env.example leaves open and FILE does not set
    if [ ! -r "$2" ]; then
        info "  $2 is not readable for you; not compared with .env.example"
        return
    fi
    open='' comment=''
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        '#'*) comment=${line#'# '} ;;
        *=*)
            variable=${line%%=*}
            read_setting "$2" "$variable"
            if [ -z "$setting" ]; then
                open="$open$newline    $variable: $comment"
            elif is_missing_file "$comment" "$setting"; then
                open="$open$newline    $variable: the file does not exist; $comment"
            fi
            ;;
        esac
    done <deploy/.env.example
    if [ -n "$open" ]; then
        info "  set in $1:$open"
    else
        info "  every required value is set in $1"
    fi
}

is_missing_file() { # COMMENT SETTING: does the variable name a file that does not exist? Compose starts in deploy/.
    case $1 in 'path of a file '*) ;; *) return 1 ;; esac
    case $2 in
    /*) [ ! -e "$2" ] ;;
    *'$'* | '~'*) return 1 ;; # Compose expands it
    *) [ ! -e "deploy/$2" ] ;;
    esac
}

read_setting() { # FILE VARIABLE: set setting to its value, without quotes; the last line counts
    setting=''
    while IFS= read -r entry || [ -n "$entry" ]; do
        case $entry in *"$2"*) ;; *) continue ;; esac
        entry=$(trim "${entry%"$return"}")
        case $entry in 'export '*) entry=$(trim "${entry#export}") ;; esac
        case $entry in '#'* | '') continue ;; *=*) ;; *) continue ;; esac
        [ "$(trim "${entry%%=*}")" = "$2" ] || continue
        setting=$(trim "${entry#*=}")
        case $setting in
        \"*) setting=${setting#\"} setting=${setting%%\"*} ;;
        \'*) setting=${setting#\'} setting=${setting%%\'*} ;;
        '#'*) setting='' ;;
        *) setting=$(trim "${setting%% #*}") ;;
        esac
    done <"$1"
}

trim() { # TEXT: print it without blanks at its ends
    text=$1
    while :; do
        case $text in
        ' '* | "$tab"*) text=${text#?} ;;
        *' ' | *"$tab") text=${text%?} ;;
        *) break ;;
        esac
    done
    printf '%s\n' "$text"
}

print_changes() { # OLDER EXAMPLE: print which variables are new, have another default, or are not used any more
    changes=''
    while IFS= read -r line || [ -n "$line" ]; do
        is_assignment "$line" || continue
        if ! older=$(find_assignment "$1" "$variable"); then
            changes="$changes$newline    $variable: new"
        elif [ "$older" != "$line" ]; then
            changes="$changes$newline    $variable: was $older, is $line"
        fi
    done <deploy/.env.example
    while IFS= read -r line || [ -n "$line" ]; do
        is_assignment "$line" || continue
        name=$variable
        find_assignment deploy/.env.example "$name" >/dev/null || changes="$changes$newline    $name: not used any more"
    done <"$1"
    [ -z "$changes" ] || info "  differs from .env.example in ${1%/*}:$changes"
}

is_assignment() { # LINE: does it set a variable, or show its default in a comment? Set variable to its name.
    variable=${1#'#'}
    case $variable in *=*) variable=${variable%%=*} ;; *) return 1 ;; esac
    case $variable in '' | *[!A-Za-z0-9_]*) return 1 ;; esac
}

find_assignment() { # EXAMPLE VARIABLE: print its line
    while IFS= read -r candidate || [ -n "$candidate" ]; do
        case $candidate in "$2="* | "#$2="*) printf '%s\n' "$candidate" && return ;; esac
    done <"$1"
    return 1
}

main() {
    parse_options "$@"
    require_tools
    bundle=$(cd -- "$(dirname -- "$0")" && pwd -P) || fail 3 engine "cannot find the directory of $0"
    [ -z "$allowed_signers" ] || allowed_signers=$(trusted_file "$allowed_signers") || exit
    [ -z "$revoked" ] || revoked=$(trusted_file "$revoked") || exit
    cd -- "$bundle" || fail 3 engine "cannot enter $bundle"
    trap remove_container EXIT
    trap 'exit 130' HUP INT TERM
    info "$project $version${since:+ since $since}"
    verify_signature
    verify_files
    check_engine
    each_line plan_image "$images"
    check_env_file
    if [ "$missing" = yes ]; then load_images; else each_line tag_image "$images"; fi
    print_next_steps
}

main "$@"
