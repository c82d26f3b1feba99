//! Long computations in short pieces.

use futures::future::try_join_all;

use crate::compute::Compute;
use crate::error::MpcError;

/// Applies `work` to all items, in order, `piece` of them at a time on the pool.
pub(crate) async fn spread<I, T, W>(compute: &Compute, items: Vec<I>, piece: usize, work: W) -> Result<Vec<T>, MpcError>
where
    I: Send + 'static,
    T: Send + 'static,
    W: Fn(I) -> T + Clone + Send + 'static,
{
    let mut items = items.into_iter();
    let mut pieces = Vec::new();
    loop {
        let next: Vec<I> = items.by_ref().take(piece.max(1)).collect();
        if next.is_empty() {
            break;
        }
        let work = work.clone();
        pieces.push(compute.run(move || next.into_iter().map(work).collect::<Vec<T>>()));
    }
    Ok(try_join_all(pieces).await?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn results_come_back_in_order_whatever_the_piece() {
        let compute = Compute::start(2).unwrap();
        for piece in [0, 1, 3, 10, 100] {
            let doubled = spread(&compute, (0..10).collect(), piece, |item: u32| item * 2).await.unwrap();
            assert_eq!(doubled, (0..10).map(|item| item * 2).collect::<Vec<_>>(), "piece {piece}");
        }
    }
}
