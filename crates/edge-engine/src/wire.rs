//! An ONNX file apart: its structure, and the values of its weights, which stay where they are.
//!
//! A protobuf decoder copies every field. Weights are nearly all of a model; copied, packed for the kernels and still mapped from
//! their file they would be in memory three times. So the bytes of large `raw_data` are taken out before decoding, by the
//! encoding's own rules (protobuf.dev/programming-guides/encoding).

/// Values of fewer bytes are left to the decoder.
const LARGE: usize = 4096;
/// ModelProto.graph.
const GRAPH: u64 = 7;
/// GraphProto.initializer.
const INITIALIZER: u64 = 5;
/// TensorProto.raw_data.
const RAW_DATA: u64 = 9;

/// A file apart.
pub struct Split<'a> {
    /// The file without the values.
    pub structure: Vec<u8>,
    /// The values of each initializer of the graph, in order; empty where they are part of the structure.
    pub values: Vec<&'a [u8]>,
}

/// Takes a file apart. `None` where it is not understood; then the decoder has the word.
pub fn split(bytes: &[u8]) -> Option<Split<'_>> {
    let mut split = Split { structure: vec![], values: vec![] };
    let mut model = Fields(bytes);
    while let Some(field) = model.next()? {
        match field.message(GRAPH) {
            None => split.structure.extend(field.whole),
            Some(graph) => {
                let mut inner = vec![];
                let mut graph = Fields(graph);
                while let Some(field) = graph.next()? {
                    match field.message(INITIALIZER) {
                        None => inner.extend(field.whole),
                        Some(tensor) => split.values.push(values(tensor, &mut inner)?),
                    }
                }
                write(GRAPH, &inner, &mut split.structure);
            }
        }
    }
    Some(split)
}

/// Writes an initializer without its values, where they are large, and gives those.
fn values<'a>(tensor: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (mut found, mut small) = (None, vec![]);
    let mut fields = Fields(tensor);
    while let Some(field) = fields.next()? {
        match field.message(RAW_DATA) {
            Some(values) if values.len() >= LARGE && found.is_none() => found = Some(values),
            // The last of several is what counts; nobody writes them.
            Some(_) if found.is_some() => {
                write(INITIALIZER, tensor, out);
                return Some(&[]);
            }
            _ => small.extend(field.whole),
        }
    }
    write(INITIALIZER, &small, out);
    Some(found.unwrap_or_default())
}

/// What is left of a message.
struct Fields<'a>(&'a [u8]);

/// A field, and what it holds where it is a message or bytes.
struct Field<'a> {
    number: u64,
    whole: &'a [u8],
    content: Option<&'a [u8]>,
}

impl<'a> Field<'a> {
    fn message(&self, number: u64) -> Option<&'a [u8]> {
        self.content.filter(|_| self.number == number)
    }
}

impl<'a> Fields<'a> {
    /// The next field; `Some(None)` at the end, `None` where it is not understood.
    fn next(&mut self) -> Option<Option<Field<'a>>> {
        let start = self.0;
        if start.is_empty() {
            return Some(None);
        }
        let key = self.varint()?;
        let content = match key & 7 {
            0 => {
                self.varint()?;
                None
            }
            1 => self.take(8).map(|_| None)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Some(self.take(length)?)
            }
            5 => self.take(4).map(|_| None)?,
            _ => return None,
        };
        let whole = &start[..start.len() - self.0.len()];
        Some(Some(Field { number: key >> 3, whole, content }))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Writes a message or bytes.
fn write(number: u64, content: &[u8], out: &mut Vec<u8>) {
    for mut value in [number << 3 | 2, content.len() as u64] {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    out.extend(content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;
    use tract_onnx::pb::{GraphProto, ModelProto, TensorProto};

    fn model(sizes: &[usize]) -> ModelProto {
        let tensor = |(i, size): (usize, &usize)| TensorProto {
            name: format!("w{i}"),
            dims: vec![*size as i64],
            raw_data: vec![i as u8; *size],
            ..TensorProto::default()
        };
        let initializer = sizes.iter().enumerate().map(tensor).collect();
        let graph = GraphProto { name: "g".into(), initializer, ..GraphProto::default() };
        ModelProto { ir_version: 9, graph: Some(graph), producer_name: "p".into(), ..ModelProto::default() }
    }

    proptest! {
        #[test]
        fn together_again_it_is_what_it_was(sizes in prop::collection::vec(prop_oneof![0..200_usize, 4000..9000_usize], 0..8)) {
            let whole = model(&sizes);
            let bytes = whole.encode_to_vec();
            let split = split(&bytes).unwrap();
            prop_assert!(split.structure.len() <= 8 * 4096 + 400);
            let mut decoded = ModelProto::decode(&split.structure[..]).unwrap();
            let tensors = &mut decoded.graph.as_mut().unwrap().initializer;
            prop_assert_eq!(tensors.len(), split.values.len());
            for (tensor, values) in tensors.iter_mut().zip(&split.values) {
                prop_assert_eq!(values.is_empty(), tensor.dims[0] < LARGE as i64);
                if !values.is_empty() {
                    tensor.raw_data = values.to_vec();
                }
            }
            prop_assert_eq!(decoded, whole);
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..9000_usize, byte: u8) {
            let _ = split(&bytes);
            let mut damaged = model(&[10, 5000]).encode_to_vec();
            let length = damaged.len();
            damaged[at % length] = byte;
            if let Some(split) = split(&damaged) {
                prop_assert!(split.values.iter().all(|v| v.is_empty() || v.len() >= LARGE));
            }
        }
    }
}
