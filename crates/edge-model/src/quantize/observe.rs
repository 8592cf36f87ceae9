//! What the values inside a network are for calibration pictures.

use super::QuantizeError;
use crate::graph::Graph;
use edge_engine::pb::ModelProto;
use edge_engine::{Attributes, LoadOptions, OnnxModel, Probe};
use edge_package::InputSpec;
use edge_vision::Layout;
use prost::Message;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Pictures as the network wants them, by number.
pub trait Pictures: Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The network's input for one of them, of the shape of [`InputSpec::shape`].
    fn tensor(&self, at: usize) -> Result<Vec<f32>, String>;
}

/// How a value lies: channels of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// Pixels.
    pub pixels: usize,
    /// (pixels, channels) rather than (channels, pixels).
    pub last: bool,
}

impl Shape {
    /// Calls `f` with each channel and its values.
    pub fn each(&self, values: &[f32], mut f: impl FnMut(usize, &mut dyn Iterator<Item = f32>)) {
        for c in 0..self.channels {
            match self.last {
                false => f(c, &mut values[c * self.pixels..(c + 1) * self.pixels].iter().copied()),
                true => f(c, &mut values[c..].iter().step_by(self.channels).copied()),
            }
        }
    }
}

/// A network of which some values are asked for.
pub struct Observer {
    probe: Probe,
    /// Their names.
    pub names: Vec<String>,
    /// How they lie.
    pub shapes: Vec<Shape>,
}

/// The bytes of a graph as an ONNX file.
pub fn encode(graph: Graph, rest: &ModelProto) -> Vec<u8> {
    graph.into_model(rest).encode_to_vec()
}

impl Observer {
    /// Loads a file for the values of these names.
    pub fn load(
        onnx: &[u8],
        input: &InputSpec,
        names: Vec<String>,
        options: &LoadOptions,
    ) -> Result<Observer, QuantizeError> {
        let model = OnnxModel::parse(onnx)?;
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let probe = Probe::load(&model, input, &asked, options)?;
        let last = channels_last(&model, input);
        let shape = |(dims, name): (&Vec<usize>, &String)| {
            let last = last.get(name.as_str()).copied().unwrap_or_default();
            match dims[..] {
                [1, h, w, c] if last => Shape { channels: c, pixels: h * w, last },
                [1, c, h, w] => Shape { channels: c, pixels: h * w, last: false },
                _ => Shape { channels: dims.iter().product(), pixels: 1, last: false },
            }
        };
        let shapes = probe.shapes().iter().zip(&names).map(shape).collect();
        Ok(Observer { probe, names, shapes })
    }

    /// Runs every picture; `state` of the same number as a value is told of it. `progress` hears how many pictures are done.
    pub fn observe<T: Send>(
        &mut self,
        pictures: &dyn Pictures,
        which: &[usize],
        states: &mut [T],
        stop: &AtomicBool,
        see: impl Fn(&mut T, &Shape, &[f32], usize) + Sync,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), QuantizeError> {
        for (done, at) in which.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(QuantizeError::Interrupted);
            }
            let tensor = pictures.tensor(*at).map_err(QuantizeError::Picture)?;
            let values = self.probe.run(&tensor)?;
            let seen: Vec<(&mut T, &Shape, &Vec<f32>)> =
                states.iter_mut().zip(&self.shapes).zip(values).map(|((s, shape), v)| (s, shape, v)).collect();
            shared(seen, |(_, _, values)| values.len(), |(state, shape, values)| see(state, shape, values, *at));
            progress(done + 1);
        }
        Ok(())
    }
}

/// Does something with each of `items` on all cores, each of which gets about as much of what `size` says.
pub fn shared<T: Send>(items: Vec<T>, size: impl Fn(&T) -> usize, each: impl Fn(T) + Sync) {
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let mut shares: Vec<Vec<T>> = (0..threads).map(|_| vec![]).collect();
    let mut load = vec![0; threads];
    for item in items {
        let least = (0..threads).min_by_key(|t| load[*t]).unwrap_or_default();
        load[least] += size(&item);
        shares[least].push(item);
    }
    thread::scope(|scope| {
        for share in shares {
            let each = &each;
            scope.spawn(move || share.into_iter().for_each(each));
        }
    });
}

/// Which pictures have their channels last.
fn channels_last(model: &OnnxModel<'_>, input: &InputSpec) -> HashMap<String, bool> {
    let mut last: HashMap<String, bool> = [(input.name.clone(), input.layout == Layout::Nhwc)].into();
    for node in model.structure().graph.iter().flat_map(|g| &g.node) {
        let read = node.input.iter().find_map(|i| last.get(i)).copied().unwrap_or_default();
        let perm = Attributes(node).ints("perm");
        let made = match node.op_type.as_str() {
            "Transpose" if perm == Some(&[0, 3, 1, 2]) => false,
            "Transpose" if perm == Some(&[0, 2, 3, 1]) => true,
            "Conv" => false,
            _ => read,
        };
        node.output.iter().for_each(|o| {
            last.insert(o.clone(), made);
        });
    }
    last
}

/// The range of each channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranges {
    /// Least values.
    pub least: Vec<f32>,
    /// Largest values.
    pub most: Vec<f32>,
}

impl Ranges {
    /// Widens it by the values of a picture.
    pub fn see(&mut self, shape: &Shape, values: &[f32]) {
        self.least.resize(shape.channels, f32::INFINITY);
        self.most.resize(shape.channels, f32::NEG_INFINITY);
        let (least, most) = (&mut self.least, &mut self.most);
        if shape.last {
            for pixel in values.chunks_exact(shape.channels) {
                least.iter_mut().zip(pixel).for_each(|(l, v)| *l = l.min(*v));
                most.iter_mut().zip(pixel).for_each(|(m, v)| *m = m.max(*v));
            }
            return;
        }
        for (c, channel) in values.chunks_exact(shape.pixels.max(1)).enumerate() {
            let (eights, rest) = channel.as_chunks::<8>();
            let mut ends = ([least[c]; 8], [most[c]; 8]);
            for eight in eights {
                ends.0.iter_mut().zip(eight).for_each(|(l, v)| *l = l.min(*v));
                ends.1.iter_mut().zip(eight).for_each(|(m, v)| *m = m.max(*v));
            }
            least[c] = ends.0.iter().chain(rest).fold(f32::INFINITY, |l, v| l.min(*v));
            most[c] = ends.1.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        }
    }

    /// What it is when each channel is divided by a factor of its own.
    pub fn divide(&mut self, factors: &[f32]) {
        self.least.iter_mut().zip(factors).for_each(|(l, f)| *l /= f);
        self.most.iter_mut().zip(factors).for_each(|(m, f)| *m /= f);
    }

    /// The largest distance from zero of each channel.
    pub fn reach(&self) -> impl Iterator<Item = f32> + '_ {
        self.least.iter().zip(&self.most).map(|(l, m)| m.max(-l).max(0.0))
    }

    /// The range of all channels.
    pub fn whole(&self) -> [f32; 2] {
        let least = self.least.iter().copied().fold(f32::INFINITY, f32::min);
        let most = self.most.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if least <= most { [least, most] } else { [0.0, 0.0] }
    }
}
