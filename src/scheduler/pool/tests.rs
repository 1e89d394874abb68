use proptest::prelude::*;

use super::*;

/// A block's tokens.
fn block(token: u32) -> Vec<u32> {
    vec![token; PAGE]
}

fn prompt(blocks: &[u32]) -> Vec<u32> {
    blocks.iter().flat_map(|&token| block(token)).collect()
}

/// A table of these blocks, computed where they are not found, all published; `None` where pages run out.
fn compute(pool: &mut Pool, blocks: &[u32]) -> Option<Table> {
    let mut table = pool.find(&prompt(blocks), 1);
    while table.pages.len() < blocks.len() {
        if !pool.grow(&mut table) {
            pool.release(table);
            return None;
        }
        let token = blocks[table.known];
        pool.publish(&mut table, &block(token));
    }
    Some(table)
}

#[test]
fn shared_blocks_are_kept_once() {
    let mut pool = Pool::new(8);
    let a = compute(&mut pool, &[1, 2, 3]).unwrap();
    let b = compute(&mut pool, &[1, 2, 4]).unwrap();
    assert_eq!(a.pages[..2], b.pages[..2]);
    assert_ne!(a.pages[2], b.pages[2]);
    assert_eq!((pool.available(), pool.idle()), (4, 0));
    // The same block behind another one is not the same.
    assert_eq!(pool.find(&prompt(&[2]), 1).pages.len(), 0);
    pool.release(a);
    assert_eq!((pool.available(), pool.idle()), (5, 1));
    pool.release(b);
    assert_eq!((pool.available(), pool.idle()), (8, 4));
    // A unit of two leaves out the third.
    let found = pool.find(&prompt(&[1, 2, 3]), 2);
    assert_eq!(found.pages.len(), 2);
    pool.release(found);
}

#[test]
fn the_longest_unused_block_goes_first_and_the_end_before_the_beginning() {
    let mut pool = Pool::new(4);
    for blocks in [[1, 2], [3, 4]] {
        let table = compute(&mut pool, &blocks).unwrap();
        pool.release(table);
    }
    let known = |pool: &mut Pool, blocks: &[u32]| {
        let table = pool.find(&prompt(blocks), 1);
        let len = table.pages.len();
        pool.release(table);
        len
    };
    // Found again, the older one is the younger.
    assert_eq!(known(&mut pool, &[1, 2]), 2);
    let mut table = Table::default();
    assert!(pool.grow(&mut table));
    assert_eq!((known(&mut pool, &[3, 4]), known(&mut pool, &[1, 2])), (1, 2));
    assert!(pool.grow(&mut table));
    assert_eq!((known(&mut pool, &[3, 4]), known(&mut pool, &[1, 2])), (0, 2));
    assert!(pool.grow(&mut table) && pool.grow(&mut table) && !pool.grow(&mut table));
    assert_eq!(known(&mut pool, &[1, 2]), 0);
    pool.release(table);
    assert_eq!((pool.available(), pool.idle()), (4, 0));
}

#[test]
fn a_block_computed_twice_is_kept_once() {
    let mut pool = Pool::new(4);
    let (mut a, mut b) = (Table::default(), Table::default());
    assert!(pool.grow(&mut a) && pool.grow(&mut b));
    assert_eq!(pool.publish(&mut a, &block(1)), None);
    assert_eq!(pool.publish(&mut b, &block(1)), Some(a.pages[0]));
    assert_eq!((a.pages.clone(), pool.available()), (b.pages.clone(), 3));
    // What follows is found behind either.
    assert!(pool.grow(&mut b));
    pool.publish(&mut b, &block(2));
    assert_eq!(pool.publish(&mut a, &block(9)), None, "there is no page to publish");
    pool.release(b);
    pool.release(a);
    let found = pool.find(&prompt(&[1, 2]), 1);
    assert_eq!(found.pages.len(), 2);
    pool.forget();
    pool.release(found);
    assert_eq!((pool.available(), pool.idle()), (4, 0));
    assert_eq!(pool.find(&prompt(&[1]), 1).pages.len(), 0);
}

/// The plainest pool: what each page holds, by whole prefixes, who has it, and in which order pages were left.
#[derive(Default)]
struct Simple {
    /// The prefix that ends with the page.
    held: HashMap<u32, Vec<u32>>,
    tables: Vec<(Vec<u32>, Vec<u32>)>,
    /// Pages left, the longest ago first.
    left: Vec<u32>,
}

impl Simple {
    fn users(&self, page: u32) -> usize {
        self.tables.iter().filter(|(pages, _)| pages.contains(&page)).count()
    }

    fn holder(&self, prefix: &[u32]) -> Option<u32> {
        self.held.iter().find(|(_, held)| *held == prefix).map(|(&page, _)| page)
    }

    fn idle(&self) -> usize {
        self.held.keys().filter(|&&page| self.users(page) == 0).count()
    }

    /// After a change of tables.
    fn leave(&mut self, pages: &[u32]) {
        for &page in pages.iter().rev() {
            self.left.retain(|&other| other != page);
            if self.users(page) == 0 && self.held.contains_key(&page) {
                self.left.push(page);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A new sequence of these blocks takes what is known of it.
    Find(Vec<u32>),
    /// A sequence gets a page.
    Grow(usize),
    /// A sequence's next block is computed; its token.
    Publish(usize, u32),
    Release(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => prop::collection::vec(1u32..3, 0..5).prop_map(Op::Find),
        5 => any::<usize>().prop_map(Op::Grow),
        5 => (any::<usize>(), 1u32..3).prop_map(|(at, token)| Op::Publish(at, token)),
        2 => any::<usize>().prop_map(Op::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn it_does_what_the_plainest_pool_does(size in 1usize..12, ops in prop::collection::vec(op(), 0..120)) {
        let mut pool = Pool::new(size);
        let mut tables: Vec<Table> = Vec::new();
        // Of each table: its pages, and the blocks that were published.
        let mut simple = Simple::default();
        for op in ops {
            match op {
                Op::Find(blocks) => {
                    let table = pool.find(&prompt(&blocks), 1);
                    let mut expected = Vec::new();
                    while let Some(page) = blocks.get(..expected.len() + 1).and_then(|prefix| simple.holder(prefix)) {
                        expected.push(page);
                    }
                    prop_assert_eq!(&table.pages, &expected);
                    simple.left.retain(|page| !expected.contains(page));
                    simple.tables.push((expected.clone(), blocks[..expected.len()].to_vec()));
                    tables.push(table);
                }
                Op::Grow(at) if !tables.is_empty() => {
                    let at = at % tables.len();
                    let unused = (0..size as u32).filter(|&page| simple.users(page) == 0 && !simple.held.contains_key(&page));
                    let unused: Vec<u32> = unused.collect();
                    let grown = pool.grow(&mut tables[at]);
                    prop_assert_eq!(grown, !unused.is_empty() || !simple.left.is_empty());
                    if grown {
                        let page = *tables[at].pages.last().unwrap();
                        match unused.is_empty() {
                            false => prop_assert!(unused.contains(&page), "page {} was in use or held a block", page),
                            true => {
                                prop_assert_eq!(page, simple.left.remove(0));
                                simple.held.remove(&page);
                            }
                        }
                        simple.tables[at].0.push(page);
                    }
                }
                Op::Publish(at, token) if !tables.is_empty() => {
                    let at = at % tables.len();
                    let (pages, blocks) = &mut simple.tables[at];
                    if blocks.len() < pages.len() {
                        blocks.push(token);
                        let (index, prefix) = (blocks.len() - 1, blocks.clone());
                        let own = pages[index];
                        let expected = simple.holder(&prefix);
                        prop_assert_eq!(pool.publish(&mut tables[at], &block(token)), expected);
                        match expected {
                            Some(page) => {
                                simple.tables[at].0[index] = page;
                                simple.left.retain(|&other| other != page);
                            }
                            None => {
                                simple.held.insert(own, prefix);
                            }
                        }
                    }
                }
                Op::Release(at) if !tables.is_empty() => {
                    let at = at % tables.len();
                    pool.release(tables.swap_remove(at));
                    let (pages, _) = simple.tables.swap_remove(at);
                    simple.leave(&pages);
                }
                _ => {}
            }
            for (table, (pages, blocks)) in tables.iter().zip(&simple.tables) {
                prop_assert_eq!(&table.pages, pages);
                prop_assert_eq!(table.known, blocks.len());
            }
            let used = (0..size as u32).filter(|&page| simple.users(page) > 0).count();
            prop_assert_eq!((pool.available(), pool.idle()), (size - used, simple.idle()));
        }
        tables.into_iter().for_each(|table| pool.release(table));
        prop_assert_eq!(pool.available(), size, "all pages come back");
    }
}
