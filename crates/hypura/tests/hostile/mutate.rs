//! Changes of a model: each takes one part of what a GGUF says and makes something else of it.

use hypura_core::random::SplitMix64;
use hypura_core::synth::{Quant, Shape};

use crate::draft::{Damage, Draft};
use crate::{metadata, tensors, vocabulary};

/// A source of choices.
pub struct Choices(SplitMix64);

impl Choices {
    pub fn new(seed: u64, index: u64) -> Self {
        Self(SplitMix64::new(hypura_core::random::at(seed, index)))
    }

    pub fn below(&mut self, most: usize) -> usize {
        self.0.below(most as u64) as usize
    }

    pub fn one_in(&mut self, most: usize) -> bool {
        self.below(most) == 0
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    pub fn word<'a>(&mut self, words: &'a str) -> &'a str {
        let all: Vec<&str> = words.split_whitespace().collect();
        all[self.below(all.len())]
    }

    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number near what is there, near a limit of a type, or any.
    pub fn number(&mut self, near: u64) -> u64 {
        match self.below(12) {
            0 => 0,
            1 => 1,
            2 => near.wrapping_add(1),
            3 => near.wrapping_sub(1),
            4 => near.wrapping_mul(2),
            5 => near / 2,
            6 => near.wrapping_mul(3),
            7 => 1 << self.below(64),
            8 => (1_u64 << self.below(64)).wrapping_sub(1),
            9 => self.bits() % 300,
            10 => u64::MAX,
            _ => self.bits() >> self.below(64),
        }
    }

    pub fn float(&mut self) -> f32 {
        let some = [0.0, -0.0, 1.0, -1.0, 1e-38, 1e38, 0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        if self.one_in(3) { f32::from_bits(self.bits() as u32) } else { *self.of(&some) }
    }

    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.bits() as u8).collect()
    }
}

const SHAPES: [(Shape, Quant); 10] = [
    (Shape::TinyLlama, Quant::Q4_K),
    (Shape::TinyLlama, Quant::F16),
    (Shape::TinyMixtral, Quant::Q4_K),
    (Shape::TinyQwen2, Quant::Q8_0),
    (Shape::TinyQwen2Vl, Quant::Q4_K),
    (Shape::TinyGemma3, Quant::Q4_K),
    (Shape::TinyQwen3Moe, Quant::Q4_K),
    (Shape::TinyGptOss, Quant::MXFP4),
    (Shape::TinyKimiK2, Quant::Q4_K),
    (Shape::TinyKimiK2, Quant::Q8_0),
];

/// Something to change, and what was done to it.
type Mutation = fn(&mut Draft, &mut Choices) -> String;

/// What the reader of headers refuses at once comes less often than what llama.cpp sees.
const MUTATIONS: [Mutation; 36] = [
    metadata::odd_value,
    metadata::odd_value,
    metadata::odd_value,
    metadata::odd_value,
    metadata::odd_value,
    metadata::per_layer,
    metadata::added_key,
    metadata::another_architecture,
    vocabulary::another_tokenizer,
    vocabulary::special_ids,
    tensors::odd_content,
    metadata::another_type,
    metadata::added_key,
    metadata::added_key,
    metadata::added_key,
    metadata::removed_key,
    metadata::repeated_key,
    metadata::per_layer,
    metadata::another_architecture,
    tensors::another_type,
    tensors::another_type,
    tensors::odd_shape,
    tensors::odd_shape,
    tensors::odd_name,
    tensors::removed,
    tensors::odd_offset,
    tensors::odd_content,
    tensors::another_width,
    tensors::another_width,
    vocabulary::another_tokenizer,
    vocabulary::special_ids,
    vocabulary::tokens,
    vocabulary::lists,
    vocabulary::template,
    shards,
    damage,
];

/// The model of this number, and what was done to it.
pub fn hostile(seed: u64, index: u64) -> (Draft, Vec<String>) {
    let mut choices = Choices::new(seed, index);
    let (shape, quant) = *choices.of(&SHAPES);
    let mut draft = Draft::of(shape, quant);
    let mut told = vec![format!("{shape} {quant:?}")];
    for _ in 0..=choices.below(3) {
        let mutation = *choices.of(&MUTATIONS);
        told.push(mutation(&mut draft, &mut choices));
    }
    (draft, told)
}

fn shards(draft: &mut Draft, choices: &mut Choices) -> String {
    draft.shards = [2, 3, 5, 200][choices.below(4)];
    match choices.below(4) {
        0 => draft.lost_shard = Some(choices.below(draft.shards.into()) as u16),
        1 => {
            let claims = (choices.number(1) as u16, choices.number(2) as u16, choices.number(20) as i32);
            draft.shard_claims = Some(claims);
        }
        _ => {}
    }
    format!("{} shards, claims {:?}, lost {:?}", draft.shards, draft.shard_claims, draft.lost_shard)
}

fn damage(draft: &mut Draft, choices: &mut Choices) -> String {
    // Half of them in what comes first: magic, version, counts.
    let at = if choices.one_in(2) { choices.bits() % 200 } else { choices.bits() >> 8 };
    let damage = match choices.below(3) {
        0 => Damage::Cut(choices.bits() >> 8),
        1 => Damage::Byte(at, choices.bits() as u8),
        _ => Damage::Word(at, choices.number(1)),
    };
    draft.damage.push(damage.clone());
    format!("{damage:?}")
}
