//! The table of cases.

mod answers;
mod camera;
mod life;
mod link;
mod log;
mod pictures;
mod slots;
mod soak;
mod starts;
mod storage;
mod update;

use super::Capability::*;
use super::Case;

/// All cases, in the order that they are run: those that only ask, those that change something and change it back, and
/// those that leave a device that has to be started anew.
pub const CASES: &[Case] = &[
    Case {
        name: "the camera says who it is",
        about: "hello: protocol, board, and the digest of the package that was put there",
        needs: &[Link],
        long: false,
        run: answers::hello,
    },
    Case {
        name: "the bench reaches the device",
        about: "a file is put there, and a script reads it back",
        needs: &[Shell],
        long: false,
        run: answers::bench_itself,
    },
    Case {
        name: "golden samples pass on the device",
        about: "every golden sample of the package, replayed there: tensors bit for bit, logits within the tolerance",
        needs: &[Link],
        long: false,
        run: answers::goldens,
    },
    Case {
        name: "statistics count on",
        about: "frames, latencies and memory are told, and frames go on while nobody does anything",
        needs: &[Link],
        long: false,
        run: answers::statistics,
    },
    Case {
        name: "the device knows how warm it is",
        about: "a temperature that a running board can have",
        needs: &[Link, Temperature],
        long: false,
        run: answers::temperature,
    },
    Case {
        name: "the last frame is classified as it is here",
        about: "the frame that the camera delivered, classified on this machine, is what stands in the log for it",
        needs: &[Link],
        long: false,
        run: pictures::last_frame,
    },
    Case {
        name: "the first class comes in time",
        about: "from power on to the first class, by the device's own clock",
        needs: &[Link, Camera],
        long: false,
        run: starts::in_time,
    },
    Case {
        name: "the camera is found",
        about: "a V4L2 camera, with a format and a size that the device's file promises",
        needs: &[Link, Camera],
        long: false,
        run: camera::found,
    },
    Case {
        name: "awkward pictures give the same tensor",
        about: "files of every kind and raw frames with odd rows and colours, classified there and here: tensors bit for bit, \
                logits within the tolerance; what is refused here is refused there",
        needs: &[Link],
        long: false,
        run: pictures::awkward,
    },
    Case {
        name: "ten photos put in, each right",
        about: "photos put in as frames through the link: each is decided on as here, logged once and in order, none stale",
        needs: &[Link, Control],
        long: false,
        run: pictures::ten_put_in,
    },
    Case {
        name: "ten photos shown, each right",
        about: "photos shown to the camera: each is delivered, decided on as here, and none is seen once the next one is there",
        needs: &[Link, Show],
        long: false,
        run: pictures::ten_shown,
    },
    Case {
        name: "what is shown is delivered",
        about: "every format in every size: each byte arrives, colours are coded as shown, and it is classified as here",
        needs: &[Link, Show],
        long: false,
        run: camera::exact,
    },
    Case {
        name: "a camera that fails comes back",
        about: "unplugged, stalled, without buffers, with requests that fail: told of within 2 s, delivers again within 10 s of its end, and memory stays flat",
        needs: &[Link, Camera, Show, CameraFaults, Shell],
        long: false,
        run: camera::faults,
    },
    Case {
        name: "recorded faults come out as they did",
        about: "traces of the camera fault lab, done again: the camera is silent, comes back and decides as it did then",
        needs: &[Link, Show, CameraFaults],
        long: false,
        run: camera::recorded,
    },
    Case {
        name: "a link that may only read refuses to change",
        about: "without --link-control whatever changes something is refused, and nothing has changed",
        needs: &[Link, ReadOnly],
        long: false,
        run: link::read_only,
    },
    Case {
        name: "garbage on the link costs nothing but itself",
        about: "noise, halves of messages and disturbed ones go ahead of a question, which is answered all the same",
        needs: &[Link],
        long: false,
        run: link::garbage,
    },
    Case {
        name: "who does not listen keeps nobody waiting",
        about: "a host that asks for frames and reads none of them: the camera goes on classifying",
        needs: &[Link],
        long: false,
        run: link::deaf,
    },
    Case {
        name: "the log is whole and in order",
        about: "every line is JSON with a time; the clock that never jumps and the frames' numbers go on, from start to start",
        needs: &[Link],
        long: false,
        run: log::whole,
    },
    Case {
        name: "memory stays flat",
        about: "a minute of frames and questions, ten with --long: resident memory does not grow from window to window",
        needs: &[Link],
        long: false,
        run: soak::flat,
    },
    Case {
        name: "the clock jumps backwards",
        about: "the wall clock is set back an hour and forward again: frames go on, and so does the other clock",
        needs: &[Link, Control, Clock],
        long: false,
        run: life::clock,
    },
    Case {
        name: "a killed camera starts again",
        about: "kill -9: it is started again, classifies as before, and no line of the log is cut",
        needs: &[Link, Shell, Supervised],
        long: false,
        run: life::killed,
    },
    Case {
        name: "a camera that hangs is ended",
        about: "SIGSTOP: without a sign of life it is killed, started again, and classifies",
        needs: &[Link, Shell, Supervised, Watchdog],
        long: false,
        run: life::hanging,
    },
    Case {
        name: "the power is cut, and it starts again",
        about: "without a word, at some moment: it starts by itself, classifies as before, and no line of the log is cut",
        needs: &[Link, PowerCut],
        long: false,
        run: life::dark,
    },
    Case {
        name: "bad packages are refused",
        about: "signed by a stranger, one bit changed, cut off, too large, older than what runs: refused with a reason, and the \
                package that ran runs on",
        needs: &[Link, Control, Packages],
        long: false,
        run: update::refused,
    },
    Case {
        name: "a good package is taken, and given up again",
        about: "a newer package, signed, sent over the link: it runs at once and proves its golden samples; SwitchSlot brings \
                the one before it back",
        needs: &[Link, Control, Packages],
        long: false,
        run: update::taken,
    },
    Case {
        name: "a full data partition",
        about: "frames are classified all the same, an update is refused, and with room again the log goes on",
        needs: &[Link, Control, Shell, DataPartition, Packages],
        long: false,
        run: storage::data_full,
    },
    Case {
        name: "it starts anew when it is told to",
        about: "Power over the link: it comes back by itself, in time, and classifies as before",
        needs: &[Link, Control, Reboot],
        long: false,
        run: starts::reboot,
    },
    Case {
        name: "a used card verifies, is read, and takes a package",
        about: "on this machine: edge-flash finds nothing changed, and a changed byte; the log is the one that the camera told; an update runs",
        needs: &[Link, Packages, Card],
        long: false,
        run: storage::card,
    },
    Case {
        name: "the power is cut during updates",
        about: "at moments left to chance, of packages and systems: it starts afterwards, with the package from before or the new one",
        needs: &[Link, Control, Packages, PowerCut],
        long: false,
        run: storage::power_cut_during_updates,
    },
    Case {
        name: "a damaged package gives way",
        about: "one changed byte of the package that runs: from the next start on the one before it runs",
        needs: &[Link, Control, Packages, Shell, Reboot, DataPartition],
        long: false,
        run: slots::damaged_package,
    },
    Case {
        name: "a system update is kept, and gives way when damaged",
        about: "tried in the other slot and kept; with one changed byte there the next start is from the slot before",
        needs: &[Link, Control, Systems, Console, Shell, Reboot],
        long: false,
        run: slots::system_kept,
    },
    Case {
        name: "a system that does not work is given up",
        about: "its camera program ends at once: after some starts the system from before runs again, by itself",
        needs: &[Link, Control, Systems, Console, Reboot],
        long: false,
        run: slots::system_given_up,
    },
    Case {
        name: "a system is written to the card",
        about: "by edge-flash on this machine: it is tried and kept",
        needs: &[Link, Systems, Console, Card],
        long: true,
        run: storage::system_on_card,
    },
];
