//! A model as another quantisation of it would be, from the header of one that is at hand.

use super::{GgmlType, GgufSet};

/// Of tensors in files.
const ALIGNMENT: u64 = 32;

impl GgufSet {
    /// The same model with its weights in another type, as another quantisation of it has them, roughly:
    /// norms and what else is in full precision stay, and so do rows that are no whole blocks of that type.
    /// `None` where sizes overflow.
    #[must_use]
    pub fn in_type(mut self, ty: GgmlType) -> Option<Self> {
        let mut ends: Vec<u64> = Vec::new();
        for tensor in &mut self.tensors {
            let row = tensor.shape.first().copied().unwrap_or(0);
            let is_weight = tensor.shape.len() > 1 && tensor.ty != GgmlType::F32;
            if let Some(row_bytes) = ty.row_bytes(row).filter(|_| is_weight) {
                let rows: u64 = tensor.shape.iter().skip(1).product();
                (tensor.ty, tensor.bytes) = (ty, row_bytes.checked_mul(rows)?);
            }
            // One behind the other, as files have them.
            ends.resize(ends.len().max(tensor.shard + 1), 0);
            let end = ends.get_mut(tensor.shard)?;
            tensor.offset = end.next_multiple_of(ALIGNMENT);
            *end = tensor.offset.checked_add(tensor.bytes)?;
        }
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{HeaderBuilder, merge, read_header};

    #[test]
    fn weights_get_the_type_and_norms_keep_theirs() {
        let mut builder = HeaderBuilder::new();
        builder.tensor("w", &[256, 4], GgmlType::Q4_K);
        builder.tensor("norm", &[256], GgmlType::F32);
        builder.tensor("narrow", &[33, 2], GgmlType::F16);
        let mut bytes = Vec::new();
        let layout = builder.write_header(&mut bytes).unwrap();
        let header = read_header(&mut bytes.as_slice(), layout.file_bytes).unwrap();
        let set = merge(vec![header], vec![layout.file_bytes]).unwrap().in_type(GgmlType::Q8_0).unwrap();
        let tensors: Vec<_> =
            set.tensors.iter().map(|tensor| (tensor.ty, tensor.bytes, tensor.offset)).collect();
        let expected = [(GgmlType::Q8_0, 1088, 0), (GgmlType::F32, 1024, 1088), (GgmlType::F16, 132, 2112)];
        assert_eq!(tensors, expected);
    }
}
