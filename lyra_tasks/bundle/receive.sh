#!/bin/sh
# Checks the bundle or pack that this script lies in and loads its images into the Docker engine; deploys nothing.
# Needs sh, coreutils and docker, and ssh-keygen where a signature is to be checked; no network.
# Its last line runs it, so that a copy that was cut off does nothing.

set -u
# what is here comes from no registry that could be asked for signatures, and is for the engine's own platform
unset CDPATH DOCKER_CONTENT_TRUST DOCKER_DEFAULT_PLATFORM
export LC_ALL=C

# >>> written by promote
project='example'
version='0.0.0'
# those that all images are there for; a node has one of them
platforms='linux/amd64'
min_engine='20.10'
# the version that a pack leaves layers of out, or nothing
since=''
# per image and platform: archive, platform, bytes needed on the engine's disk, the image that must be there already
# (name, config digest, manifest digest; or - - -), config digest, manifest digest, references
images='
images/web-0.0.0-linux-amd64.tar linux/amd64 0 - - - sha256:0 sha256:1 example/web:0.0.0
'
# <<< written by promote

newline='
'
allowed_signers='' signer='' revoked='' allow_older=no
container='' filled_in=no loaded='' fresh=no needed=0

usage() {
    cat <<'END'
usage: sh receive.sh [--allowed-signers FILE --signer NAME [--revoked FILE]] [--allow-older]

Checks every file of the bundle or pack, then the engine, loads the images, and compares what was loaded with what was
promoted. May be run again at any time: what is there already is not loaded twice. Deploys and starts nothing.

  --allowed-signers FILE  whom to trust, in ssh-keygen's format; must not come with the bundle
  --signer NAME           the principal in FILE who must have signed SHA256SUMS
  --revoked FILE          keys that are trusted no more (ssh-keygen -Y verify -r)
  --allow-older           load this version although the engine holds a newer one
  --help                  this text

Exit codes, and the first word on stderr; 3 and 3x are about this node, 6 and 6x about what was brought:
  0    everything is loaded, and is what was promoted
  2    usage
  3    engine: it does not answer, is too old, is of another platform, or failed; a tool is missing
  30   no-space: the engine's disk has no room
  31   incomplete: this node does not hold what a pack leaves out; the message says what to bring
  6    corrupt: a file is missing, changed or extra; bring the ones that are named again
  60   refused: not signed by NAME, older than what is loaded, or the version is loaded with other content
  130  interrupted
END
}

say() { printf '%s\n' "$*"; }

fail() { # CODE KIND TEXT
    code=$1 kind=$2
    shift 2
    printf 'receive.sh: %s: %s\n' "$kind" "$*" >&2
    exit "$code"
}

# ------------------------------------------------------------------------------------------------------ command line

options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --allowed-signers | --signer | --revoked)
            [ -n "${2-}" ] || fail 2 usage "$1 takes a value"
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
        *) fail 2 usage "$1 is not an option; --help lists them" ;;
        esac
        shift
    done
    case ${allowed_signers:+files}${signer:+name} in
    files | name) fail 2 usage "--allowed-signers and --signer belong together" ;;
    '') [ -z "$revoked" ] || fail 2 usage "--revoked needs --allowed-signers and --signer" ;;
    esac
}

tools() {
    for tool in cat df dirname head realpath sha256sum sort tail docker ${signer:+ssh-keygen}; do
        command -v "$tool" >/dev/null 2>&1 || fail 3 engine "$tool is not installed, or not on PATH"
    done
}

# --------------------------------------------------------------------------------------------------------- the files

outside() { # FILE: its absolute path; a file of trust that came with the bundle says nothing
    case $1 in
    /*) path=$1 ;;
    *) path=./$1 ;; # busybox's realpath knows no --
    esac
    path=$(realpath "$path" 2>/dev/null) && [ -f "$path" ] || fail 2 usage "$1 is not a file"
    case $path in
    "$bundle"/*) fail 60 refused "$1 came with the bundle; whom to trust must be known from elsewhere" ;;
    esac
    printf '%s\n' "$path"
}

has_sums() {
    [ -f SHA256SUMS ] && [ ! -L SHA256SUMS ] || fail 6 corrupt "SHA256SUMS is missing beside this script"
}

signature() {
    if [ -z "$signer" ]; then
        say "the signature is not checked: --allowed-signers FILE --signer NAME would"
        return
    fi
    has_sums
    [ -f SHA256SUMS.sig ] && [ ! -L SHA256SUMS.sig ] || fail 60 refused "the bundle is not signed"
    set -- -f "$allowed_signers" -I "$signer" -n lyra-promotion -s SHA256SUMS.sig
    answer=$(ssh-keygen -Y verify "$@" <SHA256SUMS 2>&1) ||
        fail 60 refused "not signed by $signer: $(printf '%s' "$answer" | head -n 1)"
    # asked apart, since of a key that is revoked ssh-keygen only says that it could not verify
    [ -z "$revoked" ] || ssh-keygen -Y verify "$@" -r "$revoked" <SHA256SUMS >/dev/null 2>&1 ||
        fail 60 refused "$revoked revokes the key of $signer, or is not in ssh-keygen's format"
    say "signed by $signer"
}

walk() { # FOLDER: every name below it, a line each
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
            walk "$entry"
        elif [ -f "$entry" ]; then
            printf '%s\n' "$entry"
        elif [ -e "$entry" ]; then
            printf '%s is not a file\n' "$entry"
        fi
    done
}

files() {
    has_sums
    listed=$newline problems=''
    while IFS= read -r line || [ -n "$line" ]; do
        sum=${line%%  *} name=${line#*  }
        listed=$listed./$name$newline
        case /$name/ in
        *//* | */./* | */../*)
            problems="$problems$newline  $name: not a name for a file of a bundle"
            continue
            ;;
        esac
        if [ -L "$name" ] || [ ! -f "$name" ]; then
            problems="$problems$newline  $name: missing"
            continue
        fi
        found=$(sha256sum <"$name") || found=''
        [ "${found%% *}" = "$sum" ] || problems="$problems$newline  $name: changed"
    done <SHA256SUMS
    there=$(walk .)
    while IFS= read -r name; do
        case $name in ./SHA256SUMS | ./SHA256SUMS.sig) continue ;; esac
        case $listed in
        *"$newline$name$newline"*) continue ;;
        esac
        case $name in
        ./deploy/.env) filled_in=yes ;; # whose it is, is known when it is known what is loaded
        *) problems="$problems$newline  ${name#./}: extra" ;;
        esac
    done <<END
$there
END
    [ -z "$problems" ] || fail 6 corrupt "not as promoted; copy these again, and only these$problems"
    say "every file is as promoted"
}

# -------------------------------------------------------------------------------------------------------- the engine

engine() {
    answer=$(docker version --format '{{.Server.Version}} {{.Server.Os}}/{{.Server.Arch}}' 2>&1 </dev/null) ||
        fail 3 engine "it does not answer: $answer"
    answer=${answer##*"$newline"} # what docker warns of stands before
    found=${answer%% *} system=${answer##* }
    fits=no
    for platform in $platforms; do
        ! is_own "$platform" || fits=yes
    done
    [ "$fits" = yes ] || fail 3 engine "it runs $system, and the images are for $platforms"
    lowest=$(printf '%s\n%s\n' "${found%%[!0-9.]*}" "$min_engine" | sort -t . -k 1,1n -k 2,2n -k 3,3n | head -n 1)
    [ "$lowest" = "$min_engine" ] ||
        fail 3 engine "version $found is too old; the bundle was made for $min_engine or newer"
    say "Docker Engine $found on $system"
}

is_own() { # PLATFORM: whether it is the engine's
    case $1 in
    "$system" | "$system"/*) return 0 ;;
    *) return 1 ;;
    esac
}

version_key() { # VERSION: text that sorts by semantic precedence; what follows + is no part of it
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

number_key() { # DIGITS: their number first, so that longer ones sort behind
    printf '0%03d%s' "${#1}" "$1"
}

is_version() { # TEXT: whether an image tag is a whole version, not 1.2 or latest
    case ${1%%[-_]*} in
    *[!0-9.]* | .* | *. | *..* | *.*.*.*) return 1 ;;
    *.*.*) return 0 ;;
    *) return 1 ;;
    esac
}

not_older() { # REPOSITORY: refuses where the engine holds a newer version of it
    tags=$(docker image ls --format '{{.Tag}}' "$1" </dev/null) || fail 3 engine "it cannot list the images of $1"
    own=$(version_key "$version")
    for tag in $tags; do
        is_version "$tag" || continue
        key=$(version_key "$tag")
        if [ "$(printf '%s\n%s\n' "$key" "$own" | sort | tail -n 1)" != "$own" ]; then
            fail 60 refused "$1:$tag is loaded, and newer than $version; --allow-older loads it nevertheless"
        fi
    done
}

is_version_loaded() { # CONFIG MANIFEST REFERENCE...: the first names the version, which never changes
    id=$(docker image inspect --format '{{.Id}}' "$3" 2>/dev/null </dev/null) || {
        fresh=yes
        return 1
    }
    is_promoted "$1" "$2" || fail 60 refused "the engine's $3 is $id, and promoted was $1 (config) or $2 (manifest)"
}

is_promoted() { # CONFIG MANIFEST: classic stores call an image by its config, containerd by its manifest
    [ "$id" = "$1" ] || [ "$id" = "$2" ]
}

is_complete() { # REFERENCE: whether a container can be made of it; a layer that is missing shows only then
    answer=$(docker create --pull never --network none "$1" true 2>&1 </dev/null) || return 1
    container=${answer##*"$newline"}
    discard
}

discard() {
    [ -z "$container" ] || docker rm --volumes "$container" >/dev/null 2>&1 </dev/null
    container=''
}

are_loaded() { # CONFIG MANIFEST REFERENCE...: what moves from version to version may still be elsewhere
    is_version_loaded "$@" || return
    config=$1 manifest=$2
    shift 2
    ids=$(docker image inspect --format '{{.Id}}' "$@" 2>/dev/null </dev/null) || return
    for id in $ids; do
        is_promoted "$config" "$manifest" || return
    done
    is_complete "$1"
}

# ------------------------------------------------------------------------------------------------------------ loading

each_image() { # COMMAND: calls it with the words of every image for the engine's platform, but for the platform itself
    while read -r archive platform line; do
        [ -n "$archive" ] || continue
        is_own "$platform" || continue
        # shellcheck disable=SC2086  # the words of a line are arguments
        "$1" "$archive" $line || return
    done <<END
$images
END
}

survey() { # ARCHIVE BYTES HELD CONFIG MANIFEST CONFIG MANIFEST REFERENCE...: what is to be loaded, and what it needs
    archive=$1 bytes=$2 held=$3 held_config=$4 held_manifest=$5
    shift 5
    first=$3
    [ "$allow_older" = yes ] || not_older "${first%:*}"
    if are_loaded "$@"; then
        loaded="$loaded $archive "
    else
        needed=$((needed + bytes))
        [ "$held" = - ] || is_held || lacking "${first%:*}"
    fi
}

configuration() { # what an operator filled in when the version was loaded may stay; what was there before came with it
    [ "$filled_in" = yes ] || return 0
    [ "$fresh" = no ] ||
        fail 6 corrupt "not as promoted; move this away until the images are loaded$newline  deploy/.env: extra"
    say "deploy/.env is taken to be yours: it is no part of what was promoted"
}

is_held() { # a store that loads layers without the ones below them says nothing, and cannot run them
    for known in "$held_config" "$held_manifest"; do
        ! is_complete "$known" || return 0
    done
    return 1
}

lacking() { # REPOSITORY: says what to bring
    there=''
    for tag in $(docker image ls --format '{{.Tag}}' "$1" </dev/null); do
        ! is_version "$tag" || there="$there $tag"
    done
    fail 31 incomplete "this pack leaves out layers of $held, and the engine does not hold that very image." \
        "Nothing was loaded. Bring all of $version (bundle.pack without --since)," \
        "or what it adds to a version that is here:${there:- there is none}"
}

room() {
    [ "$needed" -gt 0 ] || return 0
    root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null </dev/null) || root=''
    free=$(free_kilobytes "$root")
    if [ -z "$free" ]; then
        say "free space is not checked: the engine's folder cannot be seen from here"
    elif [ $((needed / 1024)) -gt "$free" ]; then
        fail 30 no-space "$root has $free kB free, and the images need $((needed / 1024)) kB"
    fi
}

free_kilobytes() { # FOLDER: nothing where there is none
    [ -d "$1" ] || return 0
    before=''
    for word in $(df -Pk -- "$1" 2>/dev/null | tail -n 1); do
        case $word in
        [0-9]*%) printf '%s\n' "$before" ;;
        esac
        before=$word
    done | tail -n 1
}

load() { # ARCHIVE BYTES HELD CONFIG MANIFEST CONFIG MANIFEST REFERENCE...
    archive=$1
    shift 5
    case $loaded in
    *" $archive "*)
        say "$3 is there already"
        return
        ;;
    esac
    say "loading $archive"
    if answer=$(whole "$archive" | docker load --quiet 2>&1) && are_loaded "$@"; then
        say "$3 is loaded, and is what was promoted"
        return
    fi
    case $answer in
    *'no space left'*) fail 30 no-space "$archive: $answer" ;;
    *) fail 3 engine "$archive cannot be loaded: $answer" ;;
    esac
}

whole() { # ARCHIVE: its bytes, of one piece or of its parts in order
    if [ -f "$1" ]; then
        cat -- "$1"
    else
        cat -- "$1".[0-9][0-9][0-9]
    fi
}

next() {
    say
    say "Next, in $bundle/deploy:"
    say "  cp .env.example .env, and fill in"
    comment=''
    while IFS= read -r line; do
        case $line in
        '#'*) comment=${line#'# '} ;;
        *=) say "    ${line%=}: $comment" ;;
        esac
    done <deploy/.env.example
    say "  docker compose up --detach --wait"
    say "PROMOTION.md says what everything means."
    for documents in documents.tar.gz documents.tar.gz.001; do
        # shellcheck disable=SC2016  # what is said is typed later
        [ ! -f "$documents" ] || say 'Evidence and changes: cat documents.tar.gz* | tar -xzf -'
    done
}

main() {
    options "$@"
    tools
    bundle=$(cd -- "$(dirname -- "$0")" && pwd -P) || fail 3 engine "the folder of $0 cannot be found"
    [ -z "$allowed_signers" ] || allowed_signers=$(outside "$allowed_signers") || exit
    [ -z "$revoked" ] || revoked=$(outside "$revoked") || exit
    cd -- "$bundle" || fail 3 engine "$bundle cannot be entered"
    trap discard EXIT
    trap 'exit 130' HUP INT TERM
    say "$project $version${since:+, what it adds to $since}"
    signature
    files
    engine
    each_image survey
    configuration
    room
    each_image load
    next
}

main "$@"
