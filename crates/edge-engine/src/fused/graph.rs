//! A network as layers on pictures, between ONNX' operators and steps that run.

use edge_kernels::{Counted, Function, Window};

/// No limits.
pub const OPEN: [f32; 2] = [f32::NEG_INFINITY, f32::INFINITY];

/// The number of a value.
pub type Id = usize;

/// How ONNX sees a value of one picture; in memory it is always (H,W,C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// (1,C,H,W).
    Nchw,
    /// (1,H,W,C).
    Nhwc,
    /// (1, all values), in the order of (C,H,W).
    FlatChw,
    /// (1, all values), in the order of (H,W,C).
    FlatHwc,
}

/// How bytes stand for real numbers: (q - zero) · scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quant {
    /// The scale.
    pub scale: f32,
    /// The zero point, 0…255.
    pub zero: i32,
}

impl Quant {
    /// Limits of real numbers as limits of bytes, zero point taken off and not rounded.
    pub fn limits(&self, real: [f32; 2]) -> [f32; 2] {
        both(real.map(|l| l / self.scale), [-self.zero as f32, (255 - self.zero) as f32])
    }
}

/// A value: what one layer makes and others read.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Its name in the file.
    pub name: String,
    /// Height.
    pub h: usize,
    /// Width.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// How ONNX sees it.
    pub form: Form,
    /// Where it is bytes.
    pub quant: Option<Quant>,
}

impl Value {
    /// Pixels.
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }

    /// Its dimensions in ONNX, the batch of one first.
    pub fn dims(&self) -> Vec<usize> {
        match self.form {
            Form::Nchw => vec![1, self.c, self.h, self.w],
            Form::Nhwc => vec![1, self.h, self.w, self.c],
            Form::FlatChw | Form::FlatHwc => vec![1, self.pixels() * self.c],
        }
    }

    /// For each value in ONNX' order, where it lies among the pixels' (H,W,C).
    pub fn place(&self, at: usize) -> (usize, usize) {
        match self.form {
            Form::Nhwc | Form::FlatHwc => (at / self.c, at % self.c),
            Form::Nchw | Form::FlatChw => (at % self.pixels(), at / self.pixels()),
        }
    }
}

/// The values of a filter, still in the file, and what is multiplied into them.
#[derive(Debug, Clone)]
pub struct Filter {
    /// The name of the constant.
    pub name: String,
    /// One factor per output.
    pub scale: Option<Vec<f32>>,
}

/// Which inputs an output of a convolution sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All of them.
    Full,
    /// The one of its own channel.
    Depthwise,
}

/// A convolution with what is fused into it.
#[derive(Debug, Clone)]
pub struct Conv {
    /// Where it looks.
    pub window: Window,
    /// What it sees there.
    pub kind: Kind,
    /// (O,I,kh,kw) in the file; none for a filter of ones.
    pub filter: Option<Filter>,
    /// One factor per output where there is no filter in the file.
    pub factors: Vec<f32>,
    /// One value per output.
    pub bias: Vec<f32>,
    /// Limits of what it reads.
    pub read: [f32; 2],
    /// Limits of what it writes, after the residual.
    pub written: [f32; 2],
    /// Added to what it computes.
    pub residual: Option<Id>,
    /// Applied to what it writes, after the limits.
    pub function: Option<Function>,
    /// A depthwise convolution that makes what this one reads, and the value between.
    pub first: Option<(Box<Conv>, Id)>,
    /// What is done to the pixels that it reads; only where its filter has one tap.
    pub prelude: Option<Prelude>,
}

/// What is done to each pixel before a matrix product.
#[derive(Debug, Clone)]
pub enum Prelude {
    /// See [`Op::Scale`].
    Scale {
        /// Factors.
        mul: Vec<f32>,
        /// Offsets.
        add: Vec<f32>,
        /// Limits of the result.
        written: [f32; 2],
    },
    /// See [`Op::Gate`].
    Gate(Id),
}

/// A dense layer.
#[derive(Debug, Clone)]
pub struct Dense {
    /// Inputs.
    pub k: usize,
    /// Outputs.
    pub n: usize,
    /// The name of the constant.
    pub weights: Filter,
    /// (n, k) in the file rather than (k, n).
    pub turned: bool,
    /// One value per output.
    pub bias: Vec<f32>,
    /// Limits of what it writes.
    pub written: [f32; 2],
    /// Applied to what it writes, after the limits.
    pub function: Option<Function>,
    /// How ONNX sees what it reads: in which order.
    pub input: Value,
}

/// What a layer does.
#[derive(Debug, Clone)]
pub enum Op {
    /// Nothing: another form of the same value.
    Alias,
    /// Bytes from real numbers, within limits that stood before.
    Quantize,
    /// Real numbers from bytes.
    Dequantize,
    /// Convolution.
    Conv(Conv),
    /// Dense layer.
    Dense(Dense),
    /// x · factor + offset, one of each per channel, within limits.
    Scale {
        /// Factors.
        mul: Vec<f32>,
        /// Offsets.
        add: Vec<f32>,
        /// Limits of the result.
        written: [f32; 2],
    },
    /// A function of each value.
    Apply(Function),
    /// The product of two values of the same shape.
    Mul,
    /// The first value, its channels multiplied by those of the second, which is of one pixel.
    Gate,
    /// The channels of several values, one after the other.
    Concat,
    /// Limits of each value.
    Limits([f32; 2]),
    /// The sum of two values, within limits.
    Add([f32; 2]),
    /// Zeros around the picture: before and after, of height and width.
    Pad([usize; 2], [usize; 2]),
    /// The maximum under a window.
    MaxPool(Window),
    /// The mean under a window.
    MeanPool(Window, Counted),
    /// The mean of each channel.
    Average,
    /// Softmax over all values.
    Softmax,
}

/// A layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The nodes of the file that it is made of.
    pub nodes: Vec<usize>,
    /// What it does.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<Id>,
    /// What it makes.
    pub output: Id,
}

impl Layer {
    /// The constants that it is made of.
    pub fn filters(&self) -> impl Iterator<Item = &Filter> {
        let (own, first) = match &self.op {
            Op::Conv(conv) => (conv.filter.as_ref(), conv.first.as_ref().and_then(|(f, _)| f.filter.as_ref())),
            Op::Dense(dense) => (Some(&dense.weights), None),
            _ => (None, None),
        };
        own.into_iter().chain(first)
    }

    /// Every value that it reads, a residual and a gate too.
    pub fn reads(&self) -> impl Iterator<Item = Id> + '_ {
        let (residual, gate) = match &self.op {
            Op::Conv(Conv { residual, prelude: Some(Prelude::Gate(gate)), .. }) => (*residual, Some(*gate)),
            Op::Conv(conv) => (conv.residual, None),
            _ => (None, None),
        };
        self.inputs.iter().copied().chain(residual).chain(gate)
    }
}

/// One limit after another.
pub fn both(first: [f32; 2], then: [f32; 2]) -> [f32; 2] {
    first.map(|l| l.max(then[0]).min(then[1]))
}
