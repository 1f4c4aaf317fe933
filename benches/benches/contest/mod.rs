//! Contests for criterion.

use agentflow_benches::Contest;
use criterion::{Criterion, SamplingMode, Throughput};

/// Registers a criterion group for each contest, and a function for each of its sides.
pub(crate) fn bench(contests: impl Iterator<Item = Contest>) {
    let mut criterion = Criterion::default().configure_from_args();
    for Contest { name, per, mut ours, floors } in contests {
        let mut group = criterion.benchmark_group(name);
        // One piece of work may take a tenth of a second, so each sample has the same number of them.
        group.sample_size(20).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(per));
        for (mut floor, _) in floors {
            group.bench_function(floor.name.clone(), |bencher| bencher.iter_custom(|times| floor.time(times)));
        }
        group.bench_function(ours.name.clone(), |bencher| bencher.iter_custom(|times| ours.time(times)));
        group.finish();
    }
    criterion.final_summary();
}
