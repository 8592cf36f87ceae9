//! Dense layers. Source: Keras 3.15 `layers/core/dense.py`: the last axis is what is multiplied.

use super::activation;
use crate::graph::{int, ints};
use crate::keras::cx::Cx;
use crate::keras::value::{Value, elements};

/// `Dense`: kernel (inputs,units).
pub fn dense(cx: &mut Cx<'_>, value: &Value) -> Result<Value, String> {
    let units = cx.count("units")?;
    let inputs = *value.shape.last().ok_or("there is nothing to multiply")?;
    elements(&[inputs, units])?;
    if let Ok(found) = cx.variable_shape(0)
        && found != [inputs, units]
    {
        return Err(format!(
            "its weights have the shape {found:?}, [{inputs}, {units}] is needed for its {inputs} inputs"
        ));
    }
    let with_bias = cx.flag("use_bias", true);
    let shape = [inputs, units];
    let mut result = value.shape.clone();
    *result.last_mut().ok_or("there is nothing to multiply")? = units;
    elements(&result)?;
    let bias = match with_bias {
        true => Some(cx.weight("bias", &[units], |cx| cx.variable(1, &[units]))?),
        false => None,
    };
    if value.channels_first {
        // Of every pixel the same: a 1×1 convolution, and the picture stays as it lies.
        // A layer that also sees vectors has the same weights in two orders.
        let kernel = cx.weight("pointwise_kernel", &[units, inputs, 1, 1], |cx| {
            let rows = cx.variable(0, &shape)?;
            Ok((0..units * inputs).map(|i| rows[i % inputs * units + i / inputs]).collect())
        })?;
        let mut names = vec![value.name.as_str(), &kernel];
        names.extend(bias.as_deref());
        let attributes =
            vec![ints("kernel_shape", [1, 1]), ints("strides", [1, 1]), ints("pads", [0; 4]), int("group", 1)];
        let name = cx.op("Conv", "Conv", &names, attributes)?;
        return activation::after(cx, &Value { name, shape: result, channels_first: true });
    }
    let kernel = cx.weight("kernel", &shape, |cx| cx.variable(0, &shape))?;
    let name = if value.rank() == 2 {
        let mut names = vec![value.name.as_str(), &kernel];
        names.extend(bias.as_deref());
        cx.op("Gemm", "Gemm", &names, vec![])?
    } else {
        let product = cx.op("MatMul", "MatMul", &[&value.name, &kernel], vec![])?;
        match bias {
            Some(bias) => cx.op("Add", "BiasAdd", &[&product, &bias], vec![])?,
            None => product,
        }
    };
    activation::after(cx, &Value::plain(name, result))
}
