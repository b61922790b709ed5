# Steps that dev/setup and dev/test share. Sourced by bash at the top of the repository.

# Log lines of these scripts stand out from those of the programs they call.
say() {
    printf '\n== %s\n' "$*" >&2
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# What building Tart, building the guest and running it needs.
needed_packages=(
    ca-certificates git gcc libc6-dev          # building
    mmdebstrap squashfs-tools-ng e2fsprogs tar # building the guest's disks
    qemu-system-x86 passt                      # running the guest
)

# What only the tests need.
test_packages=(git-lfs iproute2 nftables busybox-static uidmap util-linux passwd docker-registry skopeo umoci buildah apache2-utils attr curl unzip zip systemd)

# Installs the packages that are missing. Without any, apt is not asked.
install_packages() {
    local missing=() package
    for package in "$@"; do
        case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true) in
        installed) ;;
        *) missing+=("$package") ;;
        esac
    done
    # The guest's kernel comes from the lists too; a fresh container has none.
    if [ ${#missing[@]} -eq 0 ] && apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1; then
        return
    fi
    [ "$(id -u)" -eq 0 ] || fail "packages are missing, and only root can install them: ${missing[*]}"
    say "installing packages: ${missing[*]:-(only the lists of packages)}"
    apt-get -o Acquire::Retries=3 -qq update
    if [ ${#missing[@]} -gt 0 ]; then
        DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
            -qq --yes --no-install-recommends install "${missing[@]}" </dev/null
    fi
}

# Fails with what to do if Rust is missing or too old. Debian's own is.
require_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    # Where rustup puts it, for shells that have not read its profile yet.
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    have=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p') || true
    if [ -z "$have" ] || [ "$(printf '%s\n' "$wanted" "$have" | sort --version-sort | head -n 1)" != "$wanted" ]; then
        fail "Rust $wanted or later is needed, and ${have:-none} is installed (Debian's package is too old).
Install it with rustup, then run this again:
    apt-get install curl && curl https://sh.rustup.rs -sSf | sh -s -- -y --profile minimal -c clippy,rustfmt"
    fi
    command -v cargo >/dev/null || fail "rustc $have is here, but cargo is not: install the whole toolchain"
}

# cargo-nextest runs the tests. Building it takes minutes, once per machine.
require_nextest() {
    if ! cargo nextest --version >/dev/null 2>&1; then
        say "installing cargo-nextest (several minutes, once)"
        cargo install --locked cargo-nextest
    fi
}

# Builds the agent and, with it inside, the program `tart`. Sets TART_BINARY and TART_AGENT.
build_product() {
    say "building tart and the guest's agent"
    local settings
    settings=$(cargo xtask build "$@")
    eval "$settings"
}

# Builds what guests boot from, or checks that it is there.
build_assets() {
    say "building what guests boot from: kernel, helper disk, default image"
    "$TART_BINARY" assets build
}
