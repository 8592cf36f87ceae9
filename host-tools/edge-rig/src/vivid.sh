# Functions of busybox' shell that make vivid's camera see a picture. $capture and $output name its two nodes.

# Connects the output to the capture node, and shows a picture: show TIMINGS WIDTH HEIGHT FORMAT FILE.
#
# Timings and format must be the same on both sides, or vivid scales, or shows noise. The text that vivid writes into its
# pictures (OSD) is turned off. Kernels before 6.12 or so connect the two by one switch, later ones by a menu of the
# capture node whose entries name the outputs.
#
# The kernel's errors stay off the console: on a busy machine the emulated camera is late, and some kernels tell of each
# time with a stack (`schedule_timeout: wrong timeout value`), which over an emulated serial line makes it late again.
connect() {
    echo 3 >/proc/sys/kernel/printk
    v4l2-ctl -d $capture --set-input 1
    v4l2-ctl -d $output --set-output 0
    v4l2-ctl -d $capture --set-dv-bt-timings index=0
    v4l2-ctl -d $capture --set-ctrl osd_text_mode=2
    v4l2-ctl -d $capture --list-ctrls-menus >/tmp/controls
    if grep -q ' loop_video ' /tmp/controls; then
        v4l2-ctl -d $capture --set-ctrl loop_video=1
    else
        control=$(sed -n 's/^ *\(hdmi_[0-9_]*is_connected_to\) .*/\1/p' /tmp/controls | head -n 1)
        entry=$(sed -n '/is_connected_to/,/^ *[a-z]/s/^[[:space:]]*\([0-9]*\): .*HDMI.*/\1/p' /tmp/controls | head -n 1)
        v4l2-ctl -d $capture --set-ctrl "$control=$entry"
    fi
}
show() {
    v4l2-ctl -d $output --set-dv-bt-timings index=$1
    v4l2-ctl -d $output --set-fmt-video-out width=$2,height=$3,pixelformat=$4,field=none
    v4l2-ctl -d $output --stream-out-mmap --stream-from=$5 --stream-loop >/tmp/shown 2>&1 &
    shown=$!
    # Its progress is a character a frame, so anything written means that the picture is on the cable.
    for wait in $(seq 100); do
        [ -s /tmp/shown ] && break
        sleep 0.1
    done
    kill -0 $shown || { cat /tmp/shown; exit 1; }
}
