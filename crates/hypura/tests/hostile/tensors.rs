//! Changes of the tensors.

use hypura_core::gguf::GgmlType;

use crate::draft::{Draft, Tensor};
use crate::mutate::Choices;
use crate::value::{Raw, id};

fn some<'a>(draft: &'a mut Draft, choices: &mut Choices) -> Option<&'a mut Tensor> {
    let at = choices.below(draft.tensors.len());
    draft.tensors.get_mut(at)
}

fn name(tensor: &Tensor) -> String {
    String::from_utf8_lossy(&tensor.name).into_owned()
}

pub fn another_type(draft: &mut Draft, choices: &mut Choices) -> String {
    let Some(tensor) = some(draft, choices) else { return "nothing".to_owned() };
    let known = choices.of(GgmlType::ALL).id();
    tensor.ty = if choices.one_in(8) { choices.number(40) as u32 } else { known };
    // A size that is right, so that what follows sees it.
    if !choices.one_in(6) {
        tensor.fit();
    }
    format!("{} of type {}", name(tensor), tensor.ty)
}

pub fn odd_shape(draft: &mut Draft, choices: &mut Choices) -> String {
    let Some(tensor) = some(draft, choices) else { return "nothing".to_owned() };
    match choices.below(6) {
        0 => tensor.shape.reverse(),
        1 => tensor.shape.push(choices.number(1)),
        2 => drop(tensor.shape.pop()),
        _ => {
            let at = choices.below(tensor.shape.len().max(1));
            if let Some(n) = tensor.shape.get_mut(at) {
                *n = choices.number(*n);
            }
        }
    }
    if !choices.one_in(6) {
        tensor.fit();
    }
    format!("{} of {:?}", name(tensor), tensor.shape)
}

pub fn odd_name(draft: &mut Draft, choices: &mut Choices) -> String {
    let other = some(draft, choices).map(|tensor| tensor.name.clone()).unwrap_or_default();
    let Some(tensor) = some(draft, choices) else { return "nothing".to_owned() };
    let old = name(tensor);
    tensor.name = match choices.below(7) {
        0 => other,
        1 => choices.bytes(70),
        2 => old.replace("blk.0", &format!("blk.{}", choices.number(2))).into_bytes(),
        3 => old.replace("weight", "bias").into_bytes(),
        4 => old.replace("blk.1", "blk.0").into_bytes(),
        5 => format!("{old}\0x").into_bytes(),
        _ => b"rope_freqs.weight".to_vec(),
    };
    format!("{old} called {}", name(tensor))
}

pub fn removed(draft: &mut Draft, choices: &mut Choices) -> String {
    let at = choices.below(draft.tensors.len());
    if draft.tensors.is_empty() {
        return "nothing".to_owned();
    }
    let gone = draft.tensors.remove(at);
    format!("no {}", name(&gone))
}

pub fn odd_offset(draft: &mut Draft, choices: &mut Choices) -> String {
    let Some(tensor) = some(draft, choices) else { return "nothing".to_owned() };
    let aligned = choices.number(4096) & !31;
    tensor.claimed = Some(if choices.one_in(6) { choices.number(32) } else { aligned });
    format!("{} at {:?}", name(tensor), tensor.claimed)
}

/// Numbers that are none, in one tensor or in all.
pub fn odd_content(draft: &mut Draft, choices: &mut Choices) -> String {
    let filling: [u8; 4] = match choices.below(5) {
        0 => f32::NAN.to_le_bytes(),
        1 => f32::INFINITY.to_le_bytes(),
        2 => [0xff; 4],
        3 => [0; 4],
        _ => (choices.bits() as u32).to_le_bytes(),
    };
    let fill = |tensor: &mut Tensor| {
        tensor.data.iter_mut().enumerate().for_each(|(at, byte)| *byte = filling[at % 4]);
    };
    if choices.one_in(4) {
        draft.tensors.iter_mut().for_each(fill);
        return format!("all tensors full of {filling:02x?}");
    }
    let Some(tensor) = some(draft, choices) else { return "nothing".to_owned() };
    fill(tensor);
    format!("{} full of {filling:02x?}", name(tensor))
}

/// A size that many tensors and keys share is another one, everywhere.
pub fn another_width(draft: &mut Draft, choices: &mut Choices) -> String {
    let Some(shape) = some(draft, choices).map(|tensor| tensor.shape.clone()) else {
        return "nothing".to_owned();
    };
    let old = *choices.of(&shape);
    let others = [old * 2, old / 2, old + 1, old + 32, old + 256, old * 3, 256, 512, 1, 3];
    let new = *choices.of(&others);
    for tensor in &mut draft.tensors {
        if tensor.shape.contains(&old) {
            tensor.shape.iter_mut().filter(|n| **n == old).for_each(|n| *n = new);
            tensor.fit();
        }
    }
    for (_, value) in &mut draft.metadata {
        if value.as_u64() == Some(old) && matches!(value, Raw::Number(id::U32, _)) {
            *value = Raw::u32(new as u32);
        }
    }
    format!("all {old} are {new}")
}
