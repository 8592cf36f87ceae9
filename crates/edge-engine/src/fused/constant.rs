//! Constants of an ONNX graph, and attributes of its nodes.

use super::graph::Quant;
use crate::onnx::Release;
use edge_kernels::Window;
use std::collections::HashMap;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, tensor_proto::DataType};

/// A tensor of the file.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    /// All of it, but large values.
    proto: &'a TensorProto,
    /// Its values, where they are bytes.
    raw: &'a [u8],
}

impl Tensor<'_> {
    /// The type of its values.
    pub fn data_type(&self) -> Option<DataType> {
        DataType::try_from(self.proto.data_type).ok()
    }

    /// Itself with its values.
    pub fn whole(&self) -> TensorProto {
        TensorProto { raw_data: self.raw.to_vec(), ..self.proto.clone() }
    }
}

/// A constant.
#[derive(Clone)]
pub struct Constant<'a> {
    tensor: Tensor<'a>,
    /// Where it is stored in whole numbers: how they become real ones.
    scales: Option<Scales>,
}

/// (q - zero) · scale, one of each per place along an axis, or one for all.
#[derive(Clone)]
struct Scales {
    scale: Vec<f32>,
    zero: Vec<i32>,
    axis: usize,
}

/// A tensor of 8-bit numbers, zero points taken off.
pub struct Whole {
    /// Its values, -255…255.
    pub values: Vec<i16>,
    /// One scale per place along the axis, or one for all.
    pub scale: Vec<f32>,
    /// The axis.
    pub axis: usize,
}

/// The constants of a graph by name: initializers, the tensors of Constant nodes, and either of them under the name that a
/// cast to float32 or a dequantization gives it.
pub struct Constants<'a> {
    found: HashMap<&'a str, Constant<'a>>,
    release: Option<&'a Release<'a>>,
}

impl<'a> Constants<'a> {
    /// All of them. `values` are those of the graph's initializers that they have not themselves; `release` is told of values
    /// that have been used.
    pub(crate) fn of(graph: &'a GraphProto, values: &[&'a [u8]], release: Option<&'a Release<'a>>) -> Constants<'a> {
        let own = |proto: &'a TensorProto| Tensor { proto, raw: &proto.raw_data };
        let full = |(proto, raw): (&'a TensorProto, &&'a [u8])| match raw.is_empty() {
            true => own(proto),
            false => Tensor { proto, raw },
        };
        let initializers = graph.initializer.iter().zip(values).map(full).map(|t| (t.proto.name.as_str(), t));
        let nodes = graph.node.iter().filter(|n| n.op_type == "Constant");
        let nodes = nodes
            .filter_map(|n| Some((n.output.first()?.as_str(), own(n.attribute.iter().find_map(|a| a.t.as_ref())?))));
        let plain = |(name, tensor)| (name, Constant { tensor, scales: None });
        let mut all = Constants { found: initializers.chain(nodes).map(plain).collect(), release };
        for node in &graph.node {
            let Some(output) = node.output.first() else { continue };
            let made = match node.op_type.as_str() {
                // Weights in float16 are cast where they are used; they are read as float32 anyway.
                "Cast" if Attributes(node).int("to", 0) == 1 => {
                    node.input.first().and_then(|i| all.found.get(i.as_str())).filter(|c| are_floats(c.tensor)).cloned()
                }
                "DequantizeLinear" => all.dequantized(node),
                _ => None,
            };
            if let Some(constant) = made {
                all.found.insert(output, constant);
            }
        }
        all
    }

    /// The values of a constant have been used and are not needed again.
    pub(crate) fn done(&self, name: &str) {
        if let (Some(release), Some(constant)) = (self.release, self.found.get(name)) {
            release(constant.tensor.raw);
        }
    }

    fn dequantized(&self, node: &NodeProto) -> Option<Constant<'a>> {
        let source = self.found.get(node.input.first()?.as_str()).filter(|c| c.scales.is_none())?;
        if Attributes(node).int("block_size", 0) != 0 {
            return None;
        }
        let shape = dims(source.tensor)?;
        let scale = self.floats(node.input.get(1)?)?.1;
        let zero = match node.input.get(2).filter(|n| !n.is_empty()) {
            None => vec![0; scale.len()],
            Some(name) => whole(self.get(name)?)?,
        };
        let axis = Attributes(node).int("axis", 1);
        let axis = usize::try_from(if axis < 0 { axis + shape.len() as i64 } else { axis }).ok()?;
        let count = whole_count(source.tensor)?;
        let fits = scale.len() == 1 || shape.get(axis) == Some(&scale.len());
        let sane = scale.iter().all(|s| s.is_finite() && *s > 0.0);
        let product = shape.iter().try_fold(1_usize, |p, d| p.checked_mul(*d))?;
        (fits && sane && zero.len() == scale.len() && count == product)
            .then_some(Constant { tensor: source.tensor, scales: Some(Scales { scale, zero, axis }) })
    }

    /// The tensor of this name, as it is stored.
    pub(crate) fn get(&self, name: &str) -> Option<Tensor<'a>> {
        self.found.get(name).map(|c| c.tensor)
    }

    /// Whether [`Constants::floats`] gives the values, without making them.
    pub fn is_float(&self, name: &str) -> bool {
        self.found.get(name).is_some_and(|c| c.scales.is_some() || are_floats(c.tensor))
    }

    /// Whether a constant is stored in 8-bit numbers.
    pub(crate) fn is_bytes(&self, name: &str) -> bool {
        let bytes = |t: Tensor<'_>| matches!(t.data_type(), Some(DataType::Int8 | DataType::Uint8));
        self.found.get(name).is_some_and(|c| c.scales.is_some() && bytes(c.tensor))
    }

    /// A constant that is stored in 8-bit numbers.
    pub(crate) fn bytes(&self, name: &str) -> Option<Whole> {
        let constant = self.found.get(name).filter(|_| self.is_bytes(name))?;
        let scales = constant.scales.as_ref()?;
        let (inner, count) = scales.layout(constant.tensor)?;
        let tensor = constant.tensor;
        let signed = tensor.data_type() == Some(DataType::Int8);
        let mut values: Vec<i16> = match (tensor.raw.is_empty(), signed) {
            (true, _) => tensor.proto.int32_data.iter().map(|v| *v as i16).collect(),
            (false, true) => tensor.raw.iter().map(|b| i16::from(*b as i8)).collect(),
            (false, false) => tensor.raw.iter().map(|b| i16::from(*b)).collect(),
        };
        if scales.zero.iter().any(|z| *z != 0) {
            values.iter_mut().enumerate().for_each(|(i, v)| *v = v.wrapping_sub(scales.zero[i / inner % count] as i16));
        }
        // A file may say anything; sums are bounded by this.
        if values.iter().any(|v| v.unsigned_abs() > 255) {
            return None;
        }
        Some(Whole { values, scale: scales.scale.clone(), axis: scales.axis })
    }

    /// The bits of a constant that is stored in finite float16 numbers.
    pub(crate) fn halves(&self, name: &str) -> Option<Vec<u16>> {
        let constant = self.found.get(name).filter(|c| c.scales.is_none() && are_floats(c.tensor))?;
        let tensor = constant.tensor;
        let bits: Vec<u16> = match tensor.data_type()? {
            DataType::Float16 if tensor.raw.is_empty() => tensor.proto.int32_data.iter().map(|v| *v as u16).collect(),
            DataType::Float16 => tensor.raw.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect(),
            _ => return None,
        };
        bits.iter().all(|b| b & 0x7c00 != 0x7c00).then_some(bits)
    }

    /// The integers of a constant.
    pub fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.get(name)?;
        let wide = match tensor.data_type()? {
            DataType::Int64 => true,
            DataType::Int32 => false,
            _ => return None,
        };
        Some(match (wide, tensor.raw.is_empty()) {
            (true, false) => tensor.raw.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            (true, true) => tensor.proto.int64_data.clone(),
            (false, false) => tensor.raw.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
            (false, true) => tensor.proto.int32_data.iter().map(|v| i64::from(*v)).collect(),
        })
    }

    /// The values of a constant as float32, or an error that names it.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, String> {
        let values = self.floats(name).map(|f| f.1);
        values.ok_or_else(|| format!("the constant {name:?} has not the size that it says"))
    }

    /// The values of a constant, with its dimensions; of one that is stored in whole numbers, what they stand for.
    pub fn floats(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let Constant { tensor, scales } = self.found.get(name)?;
        let tensor = *tensor;
        let Some(scales) = scales else { return Some((dims(tensor)?, floats(tensor)?)) };
        let (inner, count) = scales.layout(tensor)?;
        let real = |(i, v): (usize, i32)| {
            let place = i / inner % count;
            v.wrapping_sub(scales.zero[place]) as f32 * scales.scale[place]
        };
        Some((dims(tensor)?, whole(tensor)?.into_iter().enumerate().map(real).collect()))
    }
}

impl Scales {
    /// How many values share a place along the axis, and how many places there are.
    fn layout(&self, tensor: Tensor<'_>) -> Option<(usize, usize)> {
        let shape = dims(tensor)?;
        match self.scale.len() {
            1 => Some((1, 1)),
            count => Some((shape.get(self.axis + 1..)?.iter().product::<usize>().max(1), count)),
        }
    }
}

/// How many values [`whole`] gives, without making them.
fn whole_count(tensor: Tensor<'_>) -> Option<usize> {
    Some(match tensor.data_type()? {
        DataType::Int8 | DataType::Uint8 | DataType::Int32 if tensor.raw.is_empty() => tensor.proto.int32_data.len(),
        DataType::Int8 | DataType::Uint8 => tensor.raw.len(),
        DataType::Int32 => tensor.raw.len() / 4,
        _ => return None,
    })
}

/// The values of a tensor of 8-bit or 32-bit numbers.
fn whole(tensor: Tensor<'_>) -> Option<Vec<i32>> {
    let raw = tensor.raw;
    Some(match tensor.data_type()? {
        _ if raw.is_empty() => match tensor.data_type()? {
            DataType::Int8 | DataType::Uint8 | DataType::Int32 => tensor.proto.int32_data.clone(),
            _ => return None,
        },
        DataType::Int8 => raw.iter().map(|b| i32::from(*b as i8)).collect(),
        DataType::Uint8 => raw.iter().map(|b| i32::from(*b)).collect(),
        DataType::Int32 => raw.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect(),
        _ => return None,
    })
}

/// The scale and the zero point of a quantization or a dequantization with one of each. Bytes are unsigned here: a signed
/// zero point is moved by 128.
pub fn quant(constants: &Constants<'_>, node: &NodeProto) -> Option<Quant> {
    let scale = constants.floats(node.input.get(1)?)?.1;
    let zero = match node.input.get(2).filter(|n| !n.is_empty()) {
        None => Some((DataType::Uint8, vec![0])),
        Some(name) => {
            let tensor = constants.get(name)?;
            Some((tensor.data_type()?, whole(tensor)?))
        }
    };
    let zero = match zero? {
        (DataType::Uint8, zero) if (0..=255).contains(zero.first()?) => zero,
        (DataType::Int8, zero) if (-128..=127).contains(zero.first()?) => zero.iter().map(|z| z + 128).collect(),
        _ => return None,
    };
    match (&scale[..], &zero[..]) {
        ([scale], [zero]) if scale.is_finite() && *scale > 0.0 => Some(Quant { scale: *scale, zero: *zero }),
        _ => None,
    }
}

/// The dimensions of a tensor.
pub fn dims(tensor: Tensor<'_>) -> Option<Vec<usize>> {
    tensor.proto.dims.iter().map(|d| usize::try_from(*d).ok()).collect()
}

/// The values of a tensor of float32 or float16, as many as its dimensions say.
fn floats(tensor: Tensor<'_>) -> Option<Vec<f32>> {
    let values: Vec<f32> = match tensor.data_type()? {
        DataType::Float if tensor.raw.is_empty() => tensor.proto.float_data.clone(),
        DataType::Float => tensor.raw.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        DataType::Float16 if tensor.raw.is_empty() => {
            tensor.proto.int32_data.iter().map(|v| half::f16::from_bits(*v as u16).to_f32()).collect()
        }
        DataType::Float16 => tensor.raw.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    };
    let count = dims(tensor)?.into_iter().try_fold(1_usize, usize::checked_mul)?;
    (values.len() == count).then_some(values)
}

/// The values of a tensor of float32 or float16, row-major, as many as its dimensions say; `None` where they are of another type
/// or of another number.
pub fn tensor_floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    floats(Tensor { proto: tensor, raw: &tensor.raw_data })
}

/// Whether [`floats`] gives the values, without making them.
fn are_floats(tensor: Tensor<'_>) -> bool {
    let count = dims(tensor).and_then(|d| d.into_iter().try_fold(1_usize, usize::checked_mul));
    let (raw, size, listed) = match tensor.data_type() {
        Some(DataType::Float) => (&tensor.raw, 4, tensor.proto.float_data.len()),
        Some(DataType::Float16) => (&tensor.raw, 2, tensor.proto.int32_data.len()),
        _ => return false,
    };
    count == Some(if raw.is_empty() { listed } else { raw.len() / size })
}

/// Attributes of a node.
pub struct Attributes<'a>(pub &'a NodeProto);

impl<'a> Attributes<'a> {
    fn get(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.attribute.iter().find(|a| a.name == name)
    }

    /// An integer, or its default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.get(name).map_or(default, |a| a.i)
    }

    /// A float, or its default.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.get(name).map_or(default, |a| a.f)
    }

    /// Text, or nothing.
    pub fn text(&self, name: &str) -> &'a str {
        self.get(name).and_then(|a| std::str::from_utf8(&a.s).ok()).unwrap_or_default()
    }

    /// Integers, where they are there.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.get(name).map(|a| a.ints.as_slice())
    }

    /// A height and a width, or their default; `None` where they are something else.
    pub fn pair(&self, name: &str, default: usize) -> Option<[usize; 2]> {
        match self.ints(name) {
            None => Some([default; 2]),
            Some([h, w]) => Some([usize::try_from(*h).ok()?, usize::try_from(*w).ok()?]),
            Some(_) => None,
        }
    }

    /// The window of a convolution or of pooling over a picture of `input` height and width; else why it has none.
    pub fn window(&self, input: [usize; 2], kernel: [usize; 2]) -> Result<Window, String> {
        let fail = || String::from("its strides, dilations or pads are not of a picture");
        let stride = self.pair("strides", 1).ok_or_else(fail)?;
        let dilation = self.pair("dilations", 1).ok_or_else(fail)?;
        let (before, after) = match self.text("auto_pad") {
            "" | "NOTSET" => match self.ints("pads") {
                None => ([0; 2], [0; 2]),
                Some(pads) => {
                    let pads: Vec<usize> = pads
                        .iter()
                        .map(|p| usize::try_from(*p).ok().filter(|p| *p < 1 << 16))
                        .collect::<Option<_>>()
                        .ok_or_else(fail)?;
                    let [top, left, bottom, right] = pads[..] else { return Err(fail()) };
                    ([top, left], [bottom, right])
                }
            },
            "VALID" => ([0; 2], [0; 2]),
            same @ ("SAME_UPPER" | "SAME_LOWER") => {
                let mut pads = ([0; 2], [0; 2]);
                for i in 0..2 {
                    let reach = kernel[i].checked_sub(1).and_then(|k| k.checked_mul(dilation[i])).ok_or_else(fail)? + 1;
                    let out = input[i].div_ceil(stride[i].max(1));
                    let total = ((out - 1) * stride[i] + reach).saturating_sub(input[i]);
                    pads.0[i] = if same == "SAME_UPPER" { total / 2 } else { total.div_ceil(2) };
                    pads.1[i] = total - pads.0[i];
                }
                pads
            }
            other => return Err(format!("auto_pad {other}")),
        };
        Window::new(input, kernel, stride, dilation, before, after)
            .ok_or_else(|| "its window does not fit the picture".into())
    }
}
