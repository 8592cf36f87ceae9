# What can be done to the emulated camera of a board. Needs the functions that show pictures.
capture=/dev/video0
output=/dev/video1
# What is shown, as the arguments of show_still.
state=/run/test/still

# Plugs the camera in.
plug() {
    while read -r module options; do
        # Some of them the system has loaded for real cameras.
        insmod "/test/modules/$module.ko" $options 2>/tmp/insmod || grep -q 'File exists' /tmp/insmod || cat /tmp/insmod
    done </test/modules/order
    connect
    rest
}
# Most frames are dropped: an emulated board would otherwise do nothing but copy pictures.
rest() {
    drop 0
}
# Drops PERCENT of those that are left.
drop() {
    v4l2-ctl -d $capture --set-ctrl percentage_of_dropped_buffers=$((90 + $1 / 10))
}
hide() {
    # Its device may have taken it along.
    read -r pid 2>/dev/null </run/test/shown || return 0
    kill $pid 2>/dev/null
    for wait in $(seq 100); do
        kill -0 $pid 2>/dev/null || break
        sleep 0.05
    done
    rm -f /run/test/shown
}
# The number of the timings of WIDTHxHEIGHT among those that vivid knows.
timings() {
    v4l2-ctl -d $capture --list-ctrls-menus | sed -n "s/^[[:space:]]*\([0-9]*\): $1p.*/\1/p" | head -n 1
}
# Shows a picture: show_still FORMAT WIDTH HEIGHT FILE. It stays on the cable as long as nothing follows it.
show_still() {
    hide
    if [ "$(cut -d ' ' -f 1-3 $state 2>/dev/null)" != "$1 $2 $3" ]; then
        adjust $1 $2 $3 || return 1
    fi
    setsid v4l2-ctl -d $output --stream-out-mmap --stream-from=$4 --stream-loop --stream-sleep=0 \
        </dev/null >/tmp/shown 2>&1 3>&- &
    pid=$!
    echo $pid >/run/test/shown
    # It sleeps from when the picture is on the cable.
    for wait in $(seq 600); do
        grep -q nanosleep /proc/$pid/wchan 2>/dev/null && break
        kill -0 $pid 2>/dev/null || { cat /tmp/shown >&2; echo "no picture is shown" >&2; return 1; }
        sleep 0.05
    done
    [ -z "$change" ] || v4l2-ctl -d $capture --set-ctrl dv_timings=$change,dv_timings_signal_mode=4
    change=
    echo "$@" >$state
}
# Sets another format or size: adjust FORMAT WIDTH HEIGHT.
adjust() {
    index=$(timings $2x$3)
    [ -n "$index" ] || { echo "vivid has no timings of $2x$3" >&2; return 1; }
    if [ "$(cut -d ' ' -f 2,3 $state 2>/dev/null || echo 640 480)" != "$2 $3" ]; then
        # Without a signal first, as when a cable is put into another source.
        v4l2-ctl -d $capture --set-ctrl dv_timings_signal_mode=1
        change=$index
    fi
    v4l2-ctl -d $output --set-dv-bt-timings index=$index \
        --set-fmt-video-out width=$2,height=$3,pixelformat=$1,field=none
}
# Pulls the camera out: every file that is open on it fails, then its nodes are gone.
unplug() {
    v4l2-ctl -d $capture --set-ctrl disconnect=1
    hide
    for wait in $(seq 300); do
        rmmod vivid 2>/tmp/rmmod && return
        sleep 0.1
    done
    cat /tmp/rmmod >&2
    return 1
}
# Puts it back, with what it showed.
replug() {
    # It would open the camera before its cable is connected, and keep the input that is there then.
    killall -STOP edge-camera
    plug
    killall -CONT edge-camera
    last=$(cat $state)
    # It comes up with the size of its first timings.
    echo - 640 480 >$state
    show_still $(echo $last | cut -d ' ' -f 1-4)
}
# Lets edge-camera (its process number is PID) ask for another format: format PID WIDTHxHEIGHT FORMAT. Its file is on a
# partition that is only read, so another one is put over it.
format() {
    sed "s/^camera-format.*/camera-format = \"$2@60:$3\"/" /boot/camera.toml >/run/test/camera.new
    if [ -e /run/test/camera.toml ]; then
        cat /run/test/camera.new >/run/test/camera.toml
    else
        mv /run/test/camera.new /run/test/camera.toml
        mount -o bind /run/test/camera.toml /boot/camera.toml
    fi
    kill -HUP $1
}
