# Runs on the emulated board before its camera program: puts an emulated camera with a picture in front of it, and sees to
# it that the board is switched off later. Followed by the functions that show a picture, and by what is the test's own.
mkdir -p /test/bin
busybox --install -s /test/bin
capture=/dev/video0
output=/dev/video1
log=/data/log/class.jsonl
while read -r module options; do
    # Some of them the system has loaded for real cameras.
    insmod "/test/modules/$module.ko" $options 2>/tmp/insmod || grep -q 'File exists' /tmp/insmod || cat /tmp/insmod
done </test/modules/order
# Shows a picture of 640x480 YUYV once. It stays on the cable as long as nothing follows it, and most frames of it are
# dropped: an emulated board would otherwise do nothing but copy pictures.
still() {
    v4l2-ctl -d $output --set-dv-bt-timings index=0
    v4l2-ctl -d $output --set-fmt-video-out width=640,height=480,pixelformat=YUYV,field=none
    v4l2-ctl -d $output --stream-out-mmap --stream-from=$1 --stream-loop --stream-sleep=0 &
    shown=$!
    sleep 3
    kill -0 $shown || echo "no picture is shown"
    v4l2-ctl -d $capture --set-ctrl percentage_of_dropped_buffers=90
}
