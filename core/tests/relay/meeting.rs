//! Those who meet by WebRTC: pictures go where somebody may see them, once for each node, and words to all.

use antiphon_core::relay::{Counter, RelayCommand};

use crate::world::{World, channel_id, good, ms};

/// What each node got: pictures and words.
fn got(world: &mut World) -> Vec<(usize, usize)> {
    let records = world.nodes.iter_mut().map(|node| std::mem::take(&mut node.out.records));
    records
        .map(|records| {
            let pictures = records.iter().filter(|(is_picture, _)| *is_picture).count();
            (pictures, records.len() - pictures)
        })
        .collect()
}

#[test]
fn pictures_go_once_to_nodes_where_somebody_may_see_them_and_words_to_all() {
    let mut world = World::new(5, &[2, 2, 2, 2], good());
    world.tell_all(1);
    let channel = channel_id(1);
    (0..4).for_each(|node| world.open(node, channel, 0));
    world.run(ms(200));
    let owner = world.owner(channel).expect("somebody");
    let edges: Vec<usize> = (0..4).filter(|node| *node != owner).collect();
    let (publisher, seeing, blind) = (edges[0], edges[1], edges[2]);
    world.command(seeing, Some(channel), &RelayCommand::SetPictures { channel, wanted: true });
    world.run(ms(200));
    got(&mut world);
    for _ in 0..10 {
        world.record(publisher, channel, true, &[7; 1_200]);
        world.record(publisher, channel, false, &[1, 2, 3]);
        world.run(ms(10));
    }
    let all = got(&mut world);
    assert_eq!((all[publisher], all[seeing], all[blind]), ((0, 0), (10, 10), (0, 10)));
    assert_eq!(all[owner].1, 10);
    assert_eq!(world.total(Counter::PicturesSent), 20, "to the owner, and from it to one");

    world.command(seeing, Some(channel), &RelayCommand::SetPictures { channel, wanted: false });
    world.run(ms(200));
    world.record(owner, channel, true, &[7; 100]);
    world.record(owner, channel, true, &vec![7; 1_500]);
    world.run(ms(100));
    assert!(got(&mut world).iter().all(|got| *got == (0, 0)));
    assert_eq!(world.total(Counter::FrameTooLong), 1);
}

#[test]
fn they_find_their_way_past_a_dead_owner() {
    let mut world = World::new(6, &[1, 1, 1], good());
    world.tell_all(1);
    let channel = channel_id(1);
    (0..3).for_each(|node| world.open(node, channel, 0));
    world.run(ms(200));
    let owner = world.owner(channel).expect("somebody");
    let edges: Vec<usize> = (0..3).filter(|node| *node != owner).collect();
    world.command(edges[1], Some(channel), &RelayCommand::SetPictures { channel, wanted: true });
    world.run(ms(200));
    world.kill(owner);
    world.run(ms(1_000));
    got(&mut world);
    world.record(edges[0], channel, true, &[7; 100]);
    world.run(ms(100));
    assert!(got(&mut world)[edges[1]].0 >= 1, "twice at most while the former node set is fed beside the new owner");
}
