//! An ONNX file as data: what goes in, what comes out, what it asks for.

use crate::wire::split;
use crate::{Constants, EngineError, UnsupportedOp};
use edge_package::{InputSpec, Precision};
use edge_vision::Layout;
use prost::Message;
use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_proto::DataType,
    tensor_shape_proto::dimension::Value as DimValue, type_proto::Value as TypeValue,
};

/// The opsets of the default domain that are read.
pub const OPSETS: RangeInclusive<i64> = 9..=23;
/// The largest input side, in pixels; the same bound as a package's.
const MAX_SIDE: i64 = 8192;

/// Takes bytes back that nobody needs for now.
pub type Release<'a> = dyn Fn(&[u8]) + 'a;

/// A parsed ONNX model. The values of its weights stay in the bytes that it was parsed from.
pub struct OnnxModel<'a> {
    /// Its graph is there: `parse` checked it. Large initializers are without their values.
    pub(crate) proto: ModelProto,
    /// Those, one for each initializer; empty where the initializer has them itself.
    pub(crate) values: Vec<&'a [u8]>,
    /// Told of bytes that nobody needs any more.
    pub(crate) release: Option<&'a Release<'a>>,
}

/// What the user knows and the graph may leave open.
#[derive(Debug, Clone, Default)]
pub struct InputHint {
    /// NHWC or NCHW.
    pub layout: Option<Layout>,
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// Which graph output holds the classes.
    pub output: Option<String>,
}

/// What stands between the network's last weights and its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalActivation {
    /// Nothing known: logits.
    None,
    /// A Softmax node: scores of exclusive classes.
    Softmax,
    /// A Sigmoid node: scores of independent classes.
    Sigmoid,
}

/// What a model asks for and gives, concrete for a batch of 1.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelContract {
    /// The one input.
    pub input: InputSpec,
    /// Name of the output with the classes.
    pub output: String,
    /// Opset of the default domain.
    pub opset: u32,
    /// Float, or int8 as QDQ.
    pub precision: Precision,
    /// What the graph ends with.
    pub final_activation: FinalActivation,
    /// The quantization step of the output, where a DequantizeLinear ends the graph.
    pub output_step: Option<f32>,
}

impl<'a> OnnxModel<'a> {
    /// Decodes the protobuf and checks that there is a graph of a supported opset that holds its own weights.
    pub fn parse(bytes: &'a [u8]) -> Result<OnnxModel<'a>, EngineError> {
        if bytes.is_empty() {
            return Err(EngineError::NotOnnx("the file is empty".into()));
        }
        let split = split(bytes);
        let (structure, values) = split.as_ref().map_or((bytes, &[][..]), |s| (&s.structure[..], &s.values[..]));
        let proto = ModelProto::decode(structure).map_err(|e| EngineError::NotOnnx(e.to_string()))?;
        let Some(graph) = &proto.graph else {
            return Err(EngineError::NotOnnx("it has no graph".into()));
        };
        let mut values = values.to_vec();
        values.resize(graph.initializer.len(), &[]);
        let model = OnnxModel { proto, values, release: None };
        let opset = model.opset();
        if !OPSETS.contains(&opset) {
            return Err(EngineError::Opset { found: opset });
        }
        let mut external = vec![];
        walk(model.graph(), &mut |graph| {
            for tensor in &graph.initializer {
                external.extend(external_location(tensor));
            }
            for node in &graph.node {
                external.extend(node.attribute.iter().filter_map(|a| external_location(a.t.as_ref()?)));
            }
        });
        external.sort();
        external.dedup();
        if !external.is_empty() {
            return Err(EngineError::ExternalData(external));
        }
        Ok(model)
    }

    /// With `release` to be told of the bytes of weights that have been used and, as far as can be foreseen, are not needed
    /// again: a mapping may give their memory back.
    pub fn releasing(self, release: &'a Release<'a>) -> OnnxModel<'a> {
        OnnxModel { release: Some(release), ..self }
    }

    /// The model without the values of its large weights.
    pub fn structure(&self) -> &ModelProto {
        &self.proto
    }

    /// The model as it was in the file.
    pub fn whole(&self) -> ModelProto {
        let mut proto = self.proto.clone();
        let tensors = proto.graph.iter_mut().flat_map(|g| &mut g.initializer);
        for (tensor, values) in tensors.zip(&self.values).filter(|(_, v)| !v.is_empty()) {
            tensor.raw_data = values.to_vec();
        }
        proto
    }

    fn graph(&self) -> &GraphProto {
        match &self.proto.graph {
            Some(graph) => graph,
            None => unreachable!("parse refuses a model without a graph"),
        }
    }

    /// An initializer of its graph, with the bytes of its values where they are bytes.
    pub(crate) fn initializer(&self, name: &str) -> Option<(&TensorProto, &[u8])> {
        let mut all = self.graph().initializer.iter().zip(&self.values);
        let (tensor, values) = all.find(|(tensor, _)| tensor.name == name)?;
        Some((tensor, if values.is_empty() { &tensor.raw_data } else { values }))
    }

    /// The constants of its graph, by name.
    pub fn constants(&self) -> Constants<'_> {
        Constants::of(self.graph(), &self.values, None)
    }

    /// The version of the default domain's operators.
    pub fn opset(&self) -> i64 {
        let default = |d: &str| d.is_empty() || d == "ai.onnx";
        self.proto.opset_import.iter().find(|o| default(&o.domain)).map_or(0, |o| o.version)
    }

    /// The `metadata_props` of the file.
    pub fn properties(&self) -> BTreeMap<String, String> {
        self.proto.metadata_props.iter().map(|p| (p.key.clone(), p.value.clone())).collect()
    }

    /// Producer name and version, for provenance.
    pub fn producer(&self) -> String {
        format!("{} {}", self.proto.producer_name, self.proto.producer_version).trim().into()
    }

    /// Every operator no backend can run, sub-graphs included, each once per node.
    pub fn unsupported(&self) -> Vec<UnsupportedOp> {
        let onnx = tract_onnx::onnx();
        let functions: HashSet<(&str, &str)> = self.proto.functions.iter().map(|f| (f.domain(), f.name())).collect();
        let mut found = vec![];
        walk(self.graph(), &mut |graph| {
            for node in &graph.node {
                let default = matches!(node.domain.as_str(), "" | "ai.onnx");
                // tract looks operators up by name alone. Outside the default domain a name says nothing,
                // and a model-local function would be passed over for an operator of the same name.
                let local = functions.contains(&(node.domain.as_str(), node.op_type.as_str()));
                if local || !default || !onnx.op_register.0.contains_key(&node.op_type) {
                    let operator = match default {
                        true => node.op_type.clone(),
                        false => format!("{}::{}", node.domain, node.op_type),
                    };
                    found.push(UnsupportedOp { operator, node: node_name(node) });
                }
            }
        });
        found
    }

    /// That every Transpose has a permutation: for anything else tract looks for swaps without end.
    pub(crate) fn check_permutations(&self) -> Result<(), EngineError> {
        let mut bad = None;
        walk(self.graph(), &mut |graph| {
            for node in graph.node.iter().filter(|n| n.op_type == "Transpose") {
                let perm = node.attribute.iter().find(|a| a.name == "perm").map_or(&[][..], |a| &a.ints[..]);
                if !(0..perm.len() as i64).all(|axis| perm.contains(&axis)) {
                    bad = Some(format!("the perm {perm:?} of {:?} is no permutation", node_name(node)));
                }
            }
        });
        bad.map_or(Ok(()), |why| Err(EngineError::Graph(why)))
    }

    /// The names of the float values that layers hand to each other, in the order of computation: of a quantized network what
    /// each quantized value stands for.
    pub fn layer_values(&self) -> Vec<&str> {
        let nodes = &self.graph().node;
        let quantized = nodes.iter().any(|n| n.op_type == "QuantizeLinear");
        let made = |n: &&NodeProto| n.input.first().is_some_and(|i| !self.is_constant(i));
        let kind = |n: &&NodeProto| match quantized {
            true => n.op_type == "DequantizeLinear",
            false => matches!(
                n.op_type.as_str(),
                "Conv"
                    | "Gemm"
                    | "MatMul"
                    | "Add"
                    | "Mul"
                    | "Relu"
                    | "Clip"
                    | "Sigmoid"
                    | "HardSigmoid"
                    | "HardSwish"
                    | "BatchNormalization"
                    | "MaxPool"
                    | "AveragePool"
                    | "GlobalAveragePool"
                    | "Concat"
                    | "Softmax"
            ),
        };
        let outputs = nodes.iter().filter(kind).filter(made).filter_map(|n| n.output.first());
        outputs.map(String::as_str).filter(|o| !self.is_constant(o)).collect()
    }

    /// What the model asks for and gives. All unsupported operators are reported first, together.
    pub fn contract(&self, hint: &InputHint) -> Result<ModelContract, EngineError> {
        let unsupported = self.unsupported();
        if !unsupported.is_empty() {
            return Err(EngineError::Unsupported(unsupported));
        }
        let input = self.input(hint)?;
        let output = self.output(hint)?;
        let mut quantized = false;
        walk(self.graph(), &mut |graph| {
            quantized |= graph.node.iter().any(|n| n.op_type == "QuantizeLinear" || n.op_type.starts_with("QLinear"));
        });
        let (final_activation, output_step) = self.ending(&output);
        Ok(ModelContract {
            input,
            output,
            opset: self.opset() as u32,
            precision: if quantized { Precision::Int8 } else { Precision::Float },
            final_activation,
            output_step,
        })
    }

    fn input(&self, hint: &InputHint) -> Result<InputSpec, EngineError> {
        let fail = |why: String| Err(EngineError::Input(why));
        let initializers: HashSet<&str> = self.graph().initializer.iter().map(|t| t.name.as_str()).collect();
        let inputs: Vec<&ValueInfoProto> =
            self.graph().input.iter().filter(|i| !initializers.contains(i.name.as_str())).collect();
        let [input] = inputs[..] else {
            let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
            return fail(format!("{} inputs ({}); a classifier of pictures has one", names.len(), names.join(", ")));
        };
        let (elem, dims) = tensor_type(input)
            .ok_or_else(|| EngineError::Input(format!("input {:?} has no tensor type", input.name)))?;
        if elem != DataType::Float as i32 {
            let name = DataType::try_from(elem).map_or("of an unknown type", |t| t.as_str_name());
            return fail(format!("input {:?} is {name}; FLOAT (float32) is needed", input.name));
        }
        let Some(dims) = dims else {
            return fail(format!("input {:?} has no shape; export the model with a shape", input.name));
        };
        let spelled = || {
            let sides: Vec<String> = dims.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect();
            format!("{} of input {:?}", sides.join("x"), input.name)
        };
        let [batch, a, b, c] = dims[..] else {
            return fail(format!("shape {} is no picture; a 4-D tensor (N,H,W,3) or (N,3,H,W) is needed", spelled()));
        };
        if batch.is_some_and(|n| n != 1) {
            return fail(format!(
                "the batch size is fixed to {}; pictures come one at a time, export the model with a batch of 1 or a symbolic one",
                batch.unwrap_or_default()
            ));
        }
        let three = Some(3);
        let layout = match (hint.layout, a == three, c == three) {
            (Some(Layout::Nhwc), _, true) | (None, false, true) => Layout::Nhwc,
            (Some(Layout::Nchw), true, _) | (None, true, false) => Layout::Nchw,
            (Some(Layout::Nhwc), _, false) if c.is_none() => Layout::Nhwc,
            (Some(Layout::Nchw), false, _) if a.is_none() => Layout::Nchw,
            (None, true, true) => {
                return fail(format!("shape {} could be NHWC or NCHW; say which with --layout", spelled()));
            }
            (None, false, false) if a.is_none() && c.is_none() => {
                return fail(format!("shape {} leaves the channels open; say nhwc or nchw with --layout", spelled()));
            }
            (wanted, _, _) => {
                let channels = match wanted {
                    Some(Layout::Nhwc) => c,
                    Some(Layout::Nchw) => a,
                    // The smaller of the outer dimensions is what was meant as channels.
                    None => [a, c].into_iter().flatten().min(),
                };
                return fail(format!(
                    "shape {} has {} channel(s); pictures have 3 (RGB)",
                    spelled(),
                    channels.unwrap_or_default()
                ));
            }
        };
        let (h, w) = if layout == Layout::Nhwc { (a, b) } else { (b, c) };
        let side = |graph: Option<i64>, hint: Option<u32>, what: &str| match (graph, hint) {
            (Some(g), Some(t)) if g != i64::from(t) => Err(EngineError::Input(format!(
                "the model's {what} is fixed to {g}, {t} was asked for; leave --input-size out, or export the model for that size"
            ))),
            (Some(g), _) => Ok(g),
            (None, Some(t)) => Ok(i64::from(t)),
            (None, None) => Err(EngineError::Input(format!(
                "shape {} leaves the {what} open; say the size with --input-size",
                spelled()
            ))),
        };
        let height = side(h, hint.size.map(|s| s.1), "height")?;
        let width = side(w, hint.size.map(|s| s.0), "width")?;
        if ![height, width].iter().all(|s| (1..=MAX_SIDE).contains(s)) {
            return fail(format!("{width} x {height} pixels; sides of 1 to {MAX_SIDE} are possible"));
        }
        Ok(InputSpec { name: input.name.clone(), layout, height: height as u32, width: width as u32 })
    }

    fn output(&self, hint: &InputHint) -> Result<String, EngineError> {
        let names: Vec<&str> = self.graph().output.iter().map(|o| o.name.as_str()).collect();
        let fail = |why: String| Err(EngineError::Output(why));
        let name = match (&hint.output, &names[..]) {
            (_, []) => return fail("the graph has no output".into()),
            (Some(wanted), _) if names.contains(&wanted.as_str()) => wanted.clone(),
            (Some(wanted), _) => {
                return fail(format!("there is no output {wanted:?}; there is {}", names.join(", ")));
            }
            (None, [only]) => only.to_string(),
            (None, _) => {
                return fail(format!("{} outputs ({}); say which one with --output", names.len(), names.join(", ")));
            }
        };
        let made = self.graph().node.iter().any(|n| n.output.contains(&name));
        if !made {
            return fail(format!("no node makes the output {name:?}"));
        }
        Ok(name)
    }

    /// Follows the output backwards through nodes that only rearrange, bound or scale it, to what made it.
    fn ending(&self, output: &str) -> (FinalActivation, Option<f32>) {
        let producer = |name: &str| self.graph().node.iter().find(|n| n.output.first().is_some_and(|o| o == name));
        let mut name = output;
        let mut step = None;
        // Bounded: a malformed graph may have a cycle.
        for _ in 0..16 {
            let Some(node) = producer(name) else { break };
            match node.op_type.as_str() {
                "Softmax" => return (FinalActivation::Softmax, step),
                "Sigmoid" => return (FinalActivation::Sigmoid, step),
                "DequantizeLinear" => step = step.or_else(|| self.scalar(node.input.get(1)?)),
                "QuantizeLinear" | "Identity" | "Cast" | "Reshape" | "Squeeze" | "Flatten" | "Unsqueeze"
                | "Transpose" | "Clip" | "Dropout" => {}
                // Scaling by a constant; of two computed values it would be something else, such as SiLU.
                "Mul" | "Div" if node.input.iter().filter(|i| !self.is_constant(i)).count() == 1 => {}
                _ => break,
            }
            match node.input.iter().find(|i| !self.is_constant(i)) {
                Some(input) => name = input,
                None => break,
            }
        }
        (FinalActivation::None, step)
    }

    fn is_constant(&self, name: &str) -> bool {
        let graph = self.graph();
        graph.initializer.iter().any(|t| t.name == name)
            || graph.node.iter().any(|n| n.op_type == "Constant" && n.output.iter().any(|o| o == name))
    }

    /// The value of a one-element float32 initializer or Constant.
    fn scalar(&self, name: &str) -> Option<f32> {
        let constant = || {
            let node =
                self.graph().node.iter().find(|n| n.op_type == "Constant" && n.output.iter().any(|o| o == name))?;
            node.attribute.iter().find_map(|a| a.t.as_ref())
        };
        let tensor = self.graph().initializer.iter().find(|t| t.name == name).or_else(constant)?;
        if tensor.data_type != DataType::Float as i32 {
            return None;
        }
        let value = match (&tensor.float_data[..], &tensor.raw_data[..]) {
            ([value], _) => *value,
            (_, raw) => f32::from_le_bytes(raw.try_into().ok()?),
        };
        (value.is_finite() && value > 0.0).then_some(value)
    }
}

/// Element type and dimensions (None where symbolic or unknown) of a tensor value.
fn tensor_type(value: &ValueInfoProto) -> Option<(i32, Option<Vec<Option<i64>>>)> {
    let TypeValue::TensorType(tensor) = value.r#type.as_ref()?.value.as_ref()?;
    let dims = tensor.shape.as_ref().map(|shape| {
        let known = |d: &tract_onnx::pb::tensor_shape_proto::Dimension| match d.value {
            // Some exporters write an unknown size as 0 or -1.
            Some(DimValue::DimValue(v)) if v > 0 => Some(v),
            _ => None,
        };
        shape.dim.iter().map(known).collect()
    });
    Some((tensor.elem_type, dims))
}

pub(crate) fn node_name(node: &NodeProto) -> String {
    if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() }
}

fn external_location(tensor: &TensorProto) -> Option<String> {
    let external = tensor.data_location == Some(1) || !tensor.external_data.is_empty();
    external.then(|| {
        let location = tensor.external_data.iter().find(|e| e.key == "location");
        location.map_or("a file it does not name".into(), |e| e.value.clone())
    })
}

/// Visits the graph and the sub-graphs in its nodes' attributes.
fn walk<'a>(graph: &'a GraphProto, visit: &mut impl FnMut(&'a GraphProto)) {
    let mut pending = vec![graph];
    while let Some(graph) = pending.pop() {
        visit(graph);
        for attribute in graph.node.iter().flat_map(|n| &n.attribute) {
            pending.extend(attribute.g.as_ref());
            pending.extend(&attribute.graphs);
        }
    }
}
