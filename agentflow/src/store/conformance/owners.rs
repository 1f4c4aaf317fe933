//! Checks of owners and their leases.

use super::{
    super::OwnerId,
    check::list_checks,
    harness::{Checked, Harness, LEASE, ensure, fenced, same},
};

list_checks![
    an_owner_that_left_cannot_renew,
    an_owner_is_alive_for_as_long_as_it_renews,
    a_change_through_one_handle_is_seen_through_the_other_at_once,
    the_clock_goes_forward_for_both_handles,
];

async fn an_owner_that_left_cannot_renew(h: &mut Harness<'_>) -> Checked {
    let owner = OwnerId::new();
    h.a.store.join(owner, LEASE).await?;
    h.a.store.renew(owner, LEASE).await?;
    h.a.store.leave(owner).await?;
    fenced("a renewal after the leave", h.a.store.renew(owner, LEASE).await)?;
    fenced("a renewal of an owner that never joined", h.a.store.renew(OwnerId::new(), LEASE).await)
}

async fn an_owner_is_alive_for_as_long_as_it_renews(h: &mut Harness<'_>) -> Checked {
    let live = h.a.begin("t").await?;
    for _ in 0..4 {
        h.advance(LEASE * 2 / 3).await?;
    }
    ensure(h.b.take_over().await?.is_empty(), "a run of a living owner was taken over")?;
    h.kill().await?;
    let taken = h.b.take_over().await?;
    same("the runs that are taken over", taken.iter().map(|taken| taken.run.run.id).collect(), vec![live.id])
}

async fn a_change_through_one_handle_is_seen_through_the_other_at_once(h: &mut Harness<'_>) -> Checked {
    let mut live = h.a.begin("t").await?;
    for n in 0..3 {
        let made = h.a.step(&mut live, n).await?;
        same("the head through the other handle", h.b.head("t").await?, Some(made))?;
        same("the head through the same handle", h.a.head("t").await?, Some(made))?;
    }
    Ok(())
}

async fn the_clock_goes_forward_for_both_handles(h: &mut Harness<'_>) -> Checked {
    let before = h.a.store.now().await?;
    h.advance(LEASE / 2).await?;
    for now in [h.a.store.now().await?, h.b.store.now().await?] {
        ensure(now.since(before) >= LEASE / 2, format_args!("{now:?} is less than {:?} after {before:?}", LEASE / 2))?;
    }
    Ok(())
}
