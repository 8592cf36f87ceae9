//! What a picture costs, counted rather than measured: from it can be estimated how long another machine would take.

/// What a network asks of a machine for one picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cost {
    /// Each step that a kernel of ours computes, in their order.
    pub steps: Vec<StepCost>,
    /// Memory of the values between steps and of each thread's strips, in bytes.
    pub buffers: u64,
    /// Nodes that run in tract, whose cost is not counted.
    pub uncounted: usize,
}

/// What a step asks of a machine. Channels count as they are padded here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepCost {
    /// Whether it computes with bytes.
    pub int8: bool,
    /// Whether its weights are kept as float16.
    pub half_weights: bool,
    /// Whether a processor that multiplies float16 numbers may do so with them.
    pub float16: bool,
    /// Multiplications of its matrix product, each with an addition.
    pub matrix: u64,
    /// Those of its depthwise convolution.
    pub depthwise: u64,
    /// Values of its weights, as they are packed. How many bytes one has is the machine's choice.
    pub weights: u64,
    /// Bytes that it reads and writes beside its weights.
    pub moved: u64,
}
