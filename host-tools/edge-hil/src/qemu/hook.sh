# Runs on the emulated board before its camera program: puts an emulated camera with a picture in front of it, and lets the
# test's host run more through a virtio port, where the board has one.
mkdir -p /test/bin /run/test
busybox --install -s /test/bin
. /test/camera.sh
listen() {
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat $port/name 2>/dev/null)" = $1 ] || continue
        (
            . /test/agent.sh
            AGENT=/run/test
            serve
        ) <>/dev/${port##*/} >&0 2>/dev/null &
    done
}
