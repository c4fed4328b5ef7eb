//! Runs hot paths: with criterion for people (`cargo bench`), or so many turns of one and nothing else, for a tool that counts
//! instructions (`make instructions`).

use criterion::Criterion;

/// A pure function on fixed input.
pub struct HotPath {
    pub name: &'static str,
    turn: Box<dyn FnMut()>,
}

impl HotPath {
    pub fn new<T>(name: &'static str, mut turn: impl FnMut() -> T + 'static) -> Self {
        let turn = move || {
            std::hint::black_box(turn());
        };
        Self { name, turn: Box::new(turn) }
    }
}

/// `--names` lists them; `--turns NAME COUNT` runs one.
pub fn run(mut paths: Vec<HotPath>) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--names"] => paths.iter().for_each(|path| println!("{}", path.name)),
        ["--turns", name, count] => {
            let path = paths.iter_mut().find(|path| path.name == *name).expect("a name that --names lists");
            (0..count.parse::<u64>().expect("a number of turns")).for_each(|_| (path.turn)());
        }
        _ => {
            let mut criterion = Criterion::default().configure_from_args();
            for mut path in paths {
                criterion.bench_function(path.name, |bencher| bencher.iter(|| (path.turn)()));
            }
            criterion.final_summary();
        }
    }
}
