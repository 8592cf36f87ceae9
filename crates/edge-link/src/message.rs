//! What is asked and answered. The order of variants and fields is the wire format: append, never reorder, and count
//! [`PROTOCOL`] up when a meaning changes.

use edge_package::Digest;
use edge_vision::{ColorSpace, PixelFormat};
use serde::{Deserialize, Serialize};

/// The version of these messages.
pub const PROTOCOL: u16 = 2;

/// A question with its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Question {
    pub number: u32,
    pub request: Request,
}

impl Question {
    /// Of a message that is a question and nothing besides. What an echo brings back of an answer is none.
    pub fn from_bytes(message: &[u8]) -> Option<Question> {
        match postcard::take_from_bytes(message) {
            Ok((question, [])) => Some(question),
            _ => None,
        }
    }
}

/// An answer to the question of the same number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub number: u32,
    pub reply: Reply,
}

/// What a host may ask. What changes something is answered only by a camera that was started with `--link-control`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Who is there? Comes first.
    Hello {
        /// The asker's [`PROTOCOL`].
        protocol: u16,
    },
    /// The figures of a summary line since the program started.
    Statistics,
    /// Replay the package's golden samples.
    Goldens,
    /// The last frame, as the camera delivered it.
    LastFrame,
    /// Classify this, beside what the camera sees. Neither log nor decision take note.
    Classify(PictureData),
    /// A part of the log: its last file is 0, the one before it 1, and so on.
    Log {
        /// Which file.
        file: u32,
        /// From this byte on; negative ones count from its end.
        from: i64,
        /// How many bytes at most.
        length: u32,
    },
    /// Control: take this for the next frame of the camera, with all that follows from it.
    Inject(PictureData),
    /// Control: set the wall clock.
    SetTime {
        /// Nanoseconds since 1970-01-01 UTC.
        unix_ns: u64,
    },
    /// Control: run the package of the other slot.
    SwitchSlot,
    /// Control: end the system.
    Power(Power),
    /// Control: a file is going to be sent, a package or a system bundle.
    UpdateBegin {
        /// In bytes.
        length: u64,
        /// BLAKE3-256 of all of it.
        digest: Digest,
    },
    /// Control: the next bytes of it.
    UpdateData {
        /// Where they belong: how many came before.
        offset: u64,
        /// At most a MiB.
        bytes: Vec<u8>,
    },
    /// Control: that was all; check and install it.
    UpdateEnd,
}

impl Request {
    /// Whether it changes something.
    pub fn needs_control(&self) -> bool {
        match self {
            Request::Hello { .. }
            | Request::Statistics
            | Request::Goldens
            | Request::LastFrame
            | Request::Classify(_)
            | Request::Log { .. } => false,
            Request::Inject(_)
            | Request::SetTime { .. }
            | Request::SwitchSlot
            | Request::Power(_)
            | Request::UpdateBegin { .. }
            | Request::UpdateData { .. }
            | Request::UpdateEnd => true,
        }
    }
}

/// How the system ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Power {
    /// It starts again.
    Reboot,
    /// It stays off.
    Off,
}

/// A picture for the camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PictureData {
    /// The bytes of a JPEG or PNG file.
    File(Vec<u8>),
    /// A frame as a camera delivers it.
    Raw(RawFrame),
}

/// Pixels as a camera delivers them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawFrame {
    /// Number of the frame as the source counts.
    pub number: u64,
    /// How the bytes are laid out.
    pub format: PixelFormat,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Bytes from one row to the next, where they are not as many as the pixels need.
    pub stride: Option<u32>,
    /// How Y, U and V become red, green and blue.
    pub color: ColorSpace,
    /// The pixels.
    pub bytes: Vec<u8>,
}

/// An answer, or why there is none.
pub type Reply = Result<Response, String>;

/// What a camera answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Hello`].
    Hello(Hello),
    /// To [`Request::Statistics`]: a summary line of the log, JSON.
    Statistics(String),
    /// To [`Request::Goldens`].
    Goldens(Vec<GoldenResult>),
    /// To [`Request::LastFrame`]: as it came, or as a picture where the source gives pictures; nothing before the first.
    LastFrame(Option<PictureData>),
    /// To [`Request::Classify`] and [`Request::Inject`].
    Classified(Classified),
    /// To [`Request::Log`]: those bytes, none where the file has no more.
    Log {
        /// How long the file is.
        length: u64,
        /// The part asked for.
        bytes: Vec<u8>,
    },
    /// It was done; what, for people.
    Done(String),
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The answerer's [`PROTOCOL`].
    pub protocol: u16,
    /// Version of the runtime.
    pub runtime: String,
    /// Name of the board, as packages name it.
    pub board: String,
    /// Architecture and the instruction sets that compute: `aarch64+neon, kernels neon`.
    pub isa: String,
    /// What computes: `cpu` or `tensorrt`.
    pub backend: String,
    /// Which of the package's tolerances is for it: `cpu`, `cpu-float16` or `tensorrt`.
    pub tolerance: String,
    /// Digest of the package.
    pub package: Digest,
    /// Its name and number, for people.
    pub about: String,
    /// Where frames come from, for people.
    pub source: String,
    /// Whether requests that change something are answered.
    pub control: bool,
}

/// What became of a golden sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoldenResult {
    /// Its name.
    pub name: String,
    /// The largest |Δlogit|.
    pub max_delta: f32,
    /// What the package's tolerance allows.
    pub allowed: f32,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// A classification with what is needed to compare it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classified {
    /// BLAKE3-256 of the preprocessed tensor, float32 little-endian.
    pub tensor: Digest,
    /// One per class.
    pub logits: Vec<f32>,
    /// Index of the class decided for; none where that is "unknown".
    pub class: Option<u32>,
    /// Its label.
    pub decision: String,
    /// Its score, 0…1, or the best one's where nothing was decided for.
    pub score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Question::from_bytes(&bytes);
            let _ = postcard::from_bytes::<Answer>(&bytes);
        }
    }

    /// A line that echoes must not keep a camera answering itself for ever.
    #[test]
    fn no_answer_is_a_question() {
        let classified =
            Classified { tensor: [0; 32], logits: vec![], class: None, decision: String::new(), score: 0.0 };
        let hello = Hello {
            protocol: 0,
            runtime: String::new(),
            board: String::new(),
            isa: String::new(),
            backend: String::new(),
            tolerance: String::new(),
            package: [0; 32],
            about: String::new(),
            source: String::new(),
            control: false,
        };
        let replies = [
            Err(String::new()),
            Ok(Response::Hello(hello)),
            Ok(Response::Statistics(String::new())),
            Ok(Response::Goldens(vec![])),
            Ok(Response::LastFrame(None)),
            Ok(Response::Classified(classified)),
            Ok(Response::Log { length: 0, bytes: vec![] }),
            Ok(Response::Done(String::new())),
        ];
        for reply in replies {
            let message = postcard::to_stdvec(&Answer { number: 0, reply: reply.clone() }).unwrap();
            assert_eq!(Question::from_bytes(&message), None, "{reply:?}");
        }
    }

    /// Bytes written down once: who changes the format unknowingly is told here.
    #[test]
    fn the_wire_format_stays() {
        let bytes = |request| postcard::to_stdvec(&Question { number: 300, request }).unwrap();
        assert_eq!(bytes(Request::Hello { protocol: 1 }), [0xac, 2, 0, 1]);
        assert_eq!(bytes(Request::Log { file: 1, from: -2, length: 3 }), [0xac, 2, 5, 1, 3, 3]);
        assert_eq!(bytes(Request::Power(Power::Off)), [0xac, 2, 9, 1]);
        assert_eq!(bytes(Request::UpdateEnd), [0xac, 2, 12]);
        let answer = Answer { number: 1, reply: Err("no".into()) };
        assert_eq!(postcard::to_stdvec(&answer).unwrap(), [1, 1, 2, b'n', b'o']);
    }
}
