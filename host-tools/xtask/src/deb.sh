# What a .deb of edge-camera has to do in a Debian that has nothing but what every Debian has. Runs as root in namespaces of
# its own: deb.sh ROOT DEB PACKAGE [INTERPRETER]
#   ROOT         the system, which is changed
#   DEB          the package
#   PACKAGE      an .edgepack to run
#   INTERPRETER  a static qemu for programs of another processor, registered for these namespaces alone
# Exit code 90: this kernel cannot do it; the last line says what.
set -eu
root=$1 deb=$2 package=$3 interpreter=${4:-}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

if [ -n "$interpreter" ]; then
    # Kernels from 6.7 on keep a table per user namespace; older ones refuse, unless the machine has such an entry already.
    if mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null && [ -w /proc/sys/fs/binfmt_misc/register ]; then
        magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
        mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
        printf '%s' ":edge-pack-aarch64:M::$magic:$mask:$interpreter:OCPF" > /proc/sys/fs/binfmt_misc/register || true
    fi
fi
case ${EDGE_DEB_MAKE:-} in
"") ;;
*)
    # Debian's own installer makes the system in the first place; devices are bound into it, as containers do.
    container=lxc DEBOOTSTRAP_DIR="$EDGE_DEB_MAKE/usr/share/debootstrap" \
        sh "$EDGE_DEB_MAKE/usr/sbin/debootstrap" --variant=minbase --arch="$EDGE_DEB_ARCH" \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$EDGE_DEB_SUITE" "$root" "$EDGE_DEB_MIRROR"
    exit
    ;;
esac
if ! chroot "$root" /bin/true 2>/dev/null; then
    echo "programs of another processor cannot be run here: the kernel keeps no binfmt_misc per namespace (Linux 6.7 does), and the machine has none for aarch64"
    exit 90
fi
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero full random urandom; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
in_root() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"
}
# What is there, but for what dpkg and adduser keep of everything they did.
files() {
    in_root find / -xdev \( -path /proc -o -path /dev -o -path /run -o -path /tmp \) -prune -o -print |
        grep -v -e '^/var/lib/dpkg/' -e '^/var/log/' -e '^/var/cache/' -e '^/etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$' \
            -e '^/var/lib/systemd' -e '^/etc/systemd' | sort
}

config=/etc/edge-camera/camera.toml
before=$(files)
cp "$deb" "$root/tmp/edge-camera.deb"
cp "$package" "$root/tmp/model.edgepack"
in_root dpkg --install /tmp/edge-camera.deb
in_root dpkg --audit
echo "installed: $(in_root edge-camera --version)"

in_root edge-camera --config $config --check > "$root/tmp/checked"
grep -q '^slots = "/var/lib/edge-camera"$' "$root/tmp/checked" || fail "the configuration does not name the slots"
in_root id edge-camera | grep -q video || fail "the user is not in the group video"
unit=$root/usr/lib/systemd/system/edge-camera.service
grep -q '^ExecStart=/usr/bin/edge-camera' "$unit" || fail "there is no unit"
[ -L "$root/etc/systemd/system/multi-user.target.wants/edge-camera.service" ] || fail "the service is not enabled"

# The administrator installs packages, the service's user runs them.
in_root edge-camera --config $config --install /tmp/model.edgepack
in_root setpriv --reuid=edge-camera --regid=edge-camera --init-groups \
    edge-camera --config $config --source pattern:64x64 --frames 3
[ "$(grep -c '"decision"' "$root/var/log/edge-camera/class.jsonl")" = 3 ] || fail "the log has not three frames"

# Installed again: what the administrator wrote stays.
echo 'top = 2' >> "$root$config"
in_root dpkg --install /tmp/edge-camera.deb
in_root edge-camera --config $config --check | grep -q '^top = 2$' || fail "the configuration was replaced"

in_root dpkg --remove edge-camera
[ ! -e "$root/usr/bin/edge-camera" ] || fail "the program is still there"
grep -q '^top = 2$' "$root$config" || fail "removing took the configuration"
[ -e "$root/var/lib/edge-camera/active" ] || fail "removing took the packages"
in_root dpkg --purge edge-camera
[ ! -e "$root/etc/edge-camera" ] || fail "purging left the configuration"
[ ! -e "$root/var/log/edge-camera" ] || fail "purging left the log"
if in_root getent passwd edge-camera; then fail "purging left the user"; fi
[ -z "$(in_root dpkg --audit)" ] || fail "dpkg finds something broken"
after=$(files)
[ "$before" = "$after" ] || {
    echo "$before" > /tmp/before.$$
    echo "$after" | diff /tmp/before.$$ - >&2 || true
    rm -f /tmp/before.$$
    fail "purging left files"
}
echo "removed and purged"
