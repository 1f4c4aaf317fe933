//! [`Interrupts`]: what can end a run from outside while a node is at work.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::RunErrorKind;

/// Who ended the run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Interrupt {
    Cancelled,
    ShutDown,
    TimedOut { limit: Duration },
}

impl Interrupt {
    pub(super) fn into_error(self, node: &Arc<str>) -> RunErrorKind {
        let node = Arc::clone(node);
        match self {
            Self::Cancelled => RunErrorKind::Cancelled { node },
            Self::ShutDown => RunErrorKind::ShutDown { node },
            Self::TimedOut { limit } => RunErrorKind::TimedOut { limit, node },
        }
    }
}

/// The caller's token, the app's shutdown and the run's timeout.
///
/// Nobody is asked before a node has had to wait: a run whose nodes are ready at once registers no waker and no timer.
pub(super) struct Interrupts<'a> {
    cancel: &'a CancellationToken,
    cut_off: &'a CancellationToken,
    timeout: Option<Timeout>,
    waiting: Option<Pin<Box<dyn Future<Output = Interrupt> + Send + 'a>>>,
}

#[derive(Clone, Copy)]
struct Timeout {
    limit: Duration,
    /// `None` where the limit lies beyond what the clock can name: then it never comes.
    deadline: Option<Instant>,
}

impl<'a> Interrupts<'a> {
    pub(super) fn new(
        cancel: &'a CancellationToken,
        cut_off: &'a CancellationToken,
        timeout: Option<Duration>,
    ) -> Self {
        let timeout = timeout.map(|limit| Timeout {
            limit,
            deadline: Instant::now().checked_add(limit),
        });
        Self {
            cancel,
            cut_off,
            timeout,
            waiting: None,
        }
    }

    /// Whether the run is to end before its next node.
    pub(super) fn check(&self) -> Option<Interrupt> {
        if self.cancel.is_cancelled() {
            return Some(Interrupt::Cancelled);
        }
        if self.cut_off.is_cancelled() {
            return Some(Interrupt::ShutDown);
        }
        let Timeout { limit, deadline } = self.timeout?;
        (deadline? <= Instant::now()).then_some(Interrupt::TimedOut { limit })
    }

    /// Ready when the run is to end now; else wakes the run when it is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let (cancel, cut_off, timeout) = (self.cancel, self.cut_off, self.timeout);
        self.waiting
            .get_or_insert_with(|| {
                Box::pin(async move {
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => Interrupt::Cancelled,
                        () = cut_off.cancelled() => Interrupt::ShutDown,
                        limit = passed(timeout) => Interrupt::TimedOut { limit },
                    }
                })
            })
            .as_mut()
            .poll(cx)
    }
}

async fn passed(timeout: Option<Timeout>) -> Duration {
    match timeout {
        Some(Timeout {
            limit,
            deadline: Some(deadline),
        }) => {
            sleep_until(deadline).await;
            limit
        }
        _ => std::future::pending().await,
    }
}
