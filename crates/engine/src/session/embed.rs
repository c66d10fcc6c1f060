//! Embeddings: texts through the model without a word said, several in one graph.

use hypura_ggml::{Batch, Pooling, Token};
use std::collections::VecDeque;
use std::ops::Range;

use super::kv::{KvRows, index};
use crate::error::GenerateError;

/// Texts to embed, and the vectors of those that are done.
pub(crate) struct EmbedWork {
    waiting: VecDeque<Vec<Token>>,
    pub done: Vec<Vec<f32>>,
}

impl EmbedWork {
    /// No text may be empty or longer than [`Embedder::limit`].
    pub fn new(inputs: Vec<Vec<Token>>) -> Self {
        Self { waiting: inputs.into(), done: Vec::new() }
    }

    /// Whether every text has its vector.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Tokens of the next step, about.
    pub fn next_tokens(&self) -> usize {
        self.waiting.front().map_or(0, Vec::len)
    }
}

/// The vector of a text whose tokens go through in parts.
struct Pooled {
    pooling: Pooling,
    sum: Vec<f32>,
    tokens: usize,
}

impl Pooled {
    fn new(pooling: Pooling) -> Self {
        Self { pooling, sum: Vec::new(), tokens: 0 }
    }

    fn add(&mut self, part: &[f32], tokens: usize) {
        match self.pooling {
            Pooling::First if self.tokens > 0 => {}
            Pooling::First | Pooling::Last => self.sum = part.to_vec(),
            Pooling::Mean => {
                self.sum.resize(part.len(), 0.0);
                let weight = tokens as f32 / (self.tokens + tokens) as f32;
                for (sum, value) in self.sum.iter_mut().zip(part) {
                    *sum += (value - *sum) * weight;
                }
            }
        }
        self.tokens += tokens;
    }
}

/// Embeds texts in rows that nobody uses.
pub(super) struct Embedder<'a> {
    kv: &'a mut KvRows,
    batch: &'a mut Batch,
}

impl<'a> Embedder<'a> {
    pub fn new(kv: &'a mut KvRows, batch: &'a mut Batch) -> Self {
        Self { kv, batch }
    }

    /// Most tokens of a text. A model that looks both ways needs them all in one graph.
    pub fn limit(kv: &KvRows) -> usize {
        if kv.loaded().planned.source.shape.is_causal {
            kv.context_tokens()
        } else {
            kv.context_tokens().min(room(kv))
        }
    }

    /// Embeds the next texts, as many as fit into one graph; a longer one goes through in parts. Does nothing
    /// while all sequences are in use. A failure leaves everything as it was.
    pub fn step(&mut self, work: &mut EmbedWork) -> Result<(), GenerateError> {
        let mut rows = self.kv.rows().idle_rows();
        // Conversations that may come back stay: without an empty row only the oldest one leaves.
        let empty = rows.iter().filter(|row| self.kv.rows().row(**row).cached.is_empty()).count();
        rows.truncate(empty.max(1));
        let (mut texts, mut left) = (0, room(self.kv));
        for (text, _) in work.waiting.iter().zip(&rows) {
            if text.len() > left {
                break;
            }
            left -= text.len();
            texts += 1;
        }
        let taken = texts.max(1).min(rows.len()).min(work.waiting.len());
        let inputs: Vec<Vec<Token>> = work.waiting.iter().take(taken).cloned().collect();
        let rows = &rows[..taken];
        rows.iter().for_each(|row| self.kv.empty(*row));
        self.kv.context_mut().set_embeddings(true);
        let vectors =
            if texts == 0 { self.embed_long(&inputs, rows) } else { self.embed_short(&inputs, rows) };
        self.kv.context_mut().set_embeddings(false);
        rows.iter().for_each(|row| self.kv.empty(*row));
        let vectors = vectors?;
        if vectors.iter().flatten().any(|value| !value.is_finite()) {
            return Err(GenerateError::NotFinite);
        }
        work.done.extend(vectors);
        work.waiting.drain(..taken);
        Ok(())
    }

    fn embed_short(&mut self, inputs: &[Vec<Token>], rows: &[usize]) -> Result<Vec<Vec<f32>>, GenerateError> {
        self.embed_batch(inputs.iter().zip(rows).map(|(input, row)| (*row, 0, input.as_slice())))?;
        let mut entry = 0;
        let vector = |(input, row): (&Vec<Token>, &usize)| {
            let entries = entry..entry + input.len();
            entry = entries.end;
            self.vector(*row, entries)
        };
        inputs.iter().zip(rows).map(vector).collect()
    }

    fn embed_long(&mut self, inputs: &[Vec<Token>], rows: &[usize]) -> Result<Vec<Vec<f32>>, GenerateError> {
        let (Some(input), Some(row)) = (inputs.first(), rows.first().copied()) else { return Ok(Vec::new()) };
        let mut pooled = Pooled::new(self.kv.loaded().planned.source.pooling());
        for part in input.chunks(room(self.kv)) {
            self.embed_batch(std::iter::once((row, pooled.tokens, part)))?;
            pooled.add(&self.vector(row, 0..part.len())?, part.len());
        }
        Ok(vec![pooled.sum])
    }

    /// One graph of texts: row, first position, tokens.
    fn embed_batch<'t>(
        &mut self,
        texts: impl Iterator<Item = (usize, usize, &'t [Token])>,
    ) -> Result<(), GenerateError> {
        self.batch.clear();
        for (row, first, tokens) in texts {
            for (at, token) in (first..).zip(tokens) {
                self.batch.push(*token, index(at), index(row), true);
            }
        }
        // The rows are emptied afterwards: nothing is added to them.
        Ok(self.kv.decode(self.batch, &[])?)
    }

    /// The vector of a text, or of a part of one, which is at these entries of the batch.
    fn vector(&mut self, row: usize, entries: Range<usize>) -> Result<Vec<f32>, GenerateError> {
        if self.kv.context_mut().pools() {
            return self.kv.context_mut().embedding(index(row)).ok_or(GenerateError::NoEmbedding);
        }
        let mut pooled = Pooled::new(self.kv.loaded().planned.source.pooling());
        for entry in entries {
            let token =
                self.kv.context_mut().token_embedding(index(entry)).ok_or(GenerateError::NoEmbedding)?;
            pooled.add(token, 1);
        }
        Ok(pooled.sum)
    }
}

/// Most tokens of a graph that are embedded.
fn room(kv: &KvRows) -> usize {
    let context = &kv.loaded().context;
    context.batch_capacity().max(1).min(context.output_capacity().max(1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_pool_like_the_whole() {
        let pool = |pooling| {
            let mut pooled = Pooled::new(pooling);
            pooled.add(&[1.0, 2.0], 3);
            pooled.add(&[5.0, 6.0], 1);
            pooled.sum
        };
        assert_eq!(pool(Pooling::Mean), [2.0, 3.0]);
        assert_eq!(pool(Pooling::First), [1.0, 2.0]);
        assert_eq!(pool(Pooling::Last), [5.0, 6.0]);
    }
}
