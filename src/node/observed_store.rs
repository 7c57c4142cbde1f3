//! The store of auth with a clock at its door: how long each operation took, and whether it failed.

use crate::model::{Moment, Timestamp};
use crate::store::{Item, Store, StoreError, StoreFuture, Watch};
use crate::telemetry::metrics::{METRICS, StoreOperation};
use futures::FutureExt as _;
use std::sync::Arc;
use tokio::time::Instant;

pub(super) struct ObservedStore<S>(pub Arc<S>);

/// An answer that the caller asked for (there is such a key already, or a newer revision) is no failure of the store.
fn observed<'a, T: Send + 'a>(operation: StoreOperation, work: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
    async move {
        let before = Instant::now();
        let done = work.await;
        METRICS.store.of(operation).took(before.elapsed());
        if matches!(
            done,
            Err(StoreError::Failed { .. } | StoreError::Panicked { .. } | StoreError::Closed)
        ) {
            METRICS.store_errors.of(operation).one_more();
            METRICS.store_failed.happens(Moment::now());
        }
        done
    }
    .boxed()
}

impl<S: Store> Store for ObservedStore<S> {
    fn get(&self, key: &str) -> StoreFuture<'_, Option<Item>> {
        observed(StoreOperation::Get, self.0.get(key))
    }

    fn put(&self, key: &str, value: Vec<u8>, expires: Option<Timestamp>) -> StoreFuture<'_, u64> {
        observed(StoreOperation::Put, self.0.put(key, value, expires))
    }

    fn create(&self, key: &str, value: Vec<u8>, expires: Option<Timestamp>) -> StoreFuture<'_, u64> {
        observed(StoreOperation::Create, self.0.create(key, value, expires))
    }

    fn compare_and_swap(
        &self,
        key: &str,
        expected: u64,
        value: Vec<u8>,
        expires: Option<Timestamp>,
    ) -> StoreFuture<'_, u64> {
        let work = self.0.compare_and_swap(key, expected, value, expires);
        observed(StoreOperation::CompareAndSwap, work)
    }

    fn delete(&self, key: &str) -> StoreFuture<'_, bool> {
        observed(StoreOperation::Delete, self.0.delete(key))
    }

    fn range(&self, prefix: &str, limit: usize) -> StoreFuture<'_, Vec<Item>> {
        observed(StoreOperation::Range, self.0.range(prefix, limit))
    }

    fn watch(&self, prefix: &str) -> StoreFuture<'_, Watch> {
        observed(StoreOperation::Watch, self.0.watch(prefix))
    }
}
