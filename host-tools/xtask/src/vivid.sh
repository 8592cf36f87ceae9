# Runs in the emulated machine, under busybox' shell. Makes the emulated camera do what cameras do.
set -e
capture=/dev/video0
output=/dev/video1
link=/run/cameras/usb-vivid
log=/result/life.jsonl

hide() {
    # Its device may have taken it along.
    kill $shown 2>/dev/null || true
    wait $shown 2>/dev/null || true
}

# Waits for TEXT in the log of the long-lived process, in a line later than the last mark: await TEXT [COUNT].
mark() {
    from=$(wc -l <$log)
}
await() {
    for wait in $(seq 900); do
        [ "$(sed "1,${from}d" $log | grep -c "$1")" -ge "${2:-1}" ] && return 0
        kill -0 $camera 2>/dev/null || { echo "edge-camera ended"; cat /result/life.txt; exit 1; }
        sleep 0.1
    done
    echo "$1 did not come"
    cat /result/life.txt
    tail -n 5 $log
    exit 1
}
# Waits for COUNT classifications, and notes which those are: classified PHASE COUNT.
classified() {
    # One frame may be under way that was captured before.
    mark
    await '"decision"'
    mark
    await '"decision"' $2
    sed "1,${from}d" $log | grep '"decision"' >/result/$1.jsonl
}
# Descriptors and child processes of the long-lived process.
usage() {
    echo "$(ls /proc/$camera/fd | wc -l) $(cat /proc/[0-9]*/stat 2>/dev/null | awk -v p=$camera '$4 == p' | wc -l)"
}

echo "1: the picture is shown"
connect
show 0 640 480 YUYV /photo.yuyv
v4l2-ctl -d $capture --set-fmt-video width=640,height=480,pixelformat=YUYV,field=none
v4l2-ctl -d $capture --stream-mmap --stream-count=$COMPARED --stream-to=/result/frames.yuyv >/tmp/captured 2>&1 ||
    { cat /tmp/captured; exit 1; }

echo "2: one process for all that happens to its camera"
mkdir -p /run/cameras
ln -s $capture $link
touch $log
edge-camera --package /m.edgepack --source 'v4l2:/run/cameras/usb-*' --log $log 2>/result/life.txt &
camera=$!
classified start $CLASSIFIED
usage >/result/usage-before

echo "3: a stall"
mark
v4l2-ctl -d $capture --set-ctrl percentage_of_dropped_buffers=100
await '"camera_stalled"'
await '"camera_lost".*no frame for'
mark
v4l2-ctl -d $capture --set-ctrl percentage_of_dropped_buffers=0
await '"camera_back"'
classified stall 1

echo "4: unplugged and plugged in again"
mark
v4l2-ctl -d $capture --set-ctrl disconnect=1
rm $link
await '"camera_lost".*nothing is called'
hide
for wait in $(seq 50); do
    rmmod vivid && break
    sleep 0.2
done
[ ! -e $capture ]
insmod /modules/vivid.ko $(sed -n 's/^vivid //p' /modules/order)
connect
show 0 640 480 YUYV /photo.yuyv
mark
ln -s $capture $link
await '"camera_back"'
classified unplugged 1

echo "5: the source changes its format"
mark
v4l2-ctl -d $capture --set-ctrl dv_timings_signal_mode=1
await 'its source has changed'
await 'no signal'
hide
v4l2-ctl -d $capture --list-ctrls-menus >/tmp/controls
hd=$(sed -n 's/^[[:space:]]*\([0-9]*\): 1280x720p30$/\1/p' /tmp/controls | head -n 1)
show $hd 1280 720 YUYV /large.yuyv
mark
v4l2-ctl -d $capture --set-ctrl dv_timings=$hd,dv_timings_signal_mode=4
await '"camera_back".*1280x720'
classified format 1
usage >/result/usage-after
kill $camera
wait $camera
hide

echo "6: grey"
rmmod vivid
insmod /modules/vivid.ko $(sed -n 's/^vivid //p' /modules/order)
connect
show 0 640 480 GREY /photo.grey
edge-camera --source v4l2:$capture --camera-format 640x480@30:GREY --collect /result --label grey --every 0s --count 3 \
    2>/result/grey.txt || { cat /result/grey.txt; exit 1; }
hide

echo "7: a webcam, by its name"
v4l2-ctl -d $capture --set-input 0
edge-camera --package /m.edgepack --source v4l2:name=VIVID --frames $CLASSIFIED --log /result/webcam.jsonl \
    2>/result/webcam.txt || { cat /result/webcam.txt; exit 1; }
echo "8: killed while its camera is stuck"
edge-camera --source v4l2:$capture --collect /tmp --label killed --every 1h 2>/dev/null &
camera=$!
for wait in $(seq 300); do
    [ -n "$(ls /tmp/killed 2>/dev/null)" ] && break
    sleep 0.1
done
v4l2-ctl -d $capture --set-ctrl percentage_of_dropped_buffers=100
holders() {
    cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -c '[c]apture-worker' || true
}
[ "$(holders)" = 1 ]
kill -9 $camera
for wait in $(seq 100); do
    [ "$(holders)" = 0 ] && break
    sleep 0.1
done
[ "$(holders)" = 0 ]

echo "9: cameras that cannot be opened"
refused() {
    name=$1
    shift
    code=0
    "$@" --collect /tmp --label none 2>/result/$name.txt || code=$?
    [ $code = 4 ] || { cat /result/$name.txt; exit 1; }
}
refused none edge-camera --source v4l2:name=none
refused format edge-camera --source v4l2:$capture --camera-format 640x480@30:MJPEG
chmod 600 $capture
mkdir -p /etc
echo 'visitor:x:1000:1000::/tmp:/bin/sh' >/etc/passwd
refused denied start-stop-daemon -S -c visitor -x /usr/local/bin/edge-camera -- --source v4l2:$capture
