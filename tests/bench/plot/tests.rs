use std::path::{Path, PathBuf};
use std::{fs, process};

use hdrhistogram::Histogram;

use super::*;

/// A file that is removed with the test, unless that fails.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("plot-{name}-{}.svg", process::id())))
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.0).expect("the plot is written")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fs::remove_file(&self.0).ok();
        }
    }
}

/// What a plot shows as text, in its order.
fn texts(svg: &str) -> Vec<&str> {
    let texts = svg.split("<text ").skip(1);
    let inner = texts.filter_map(|text| text.split_once('>')?.1.split_once("</text>"));
    inner.map(|(text, _)| text.trim()).collect()
}

fn assert_shows(svg: &str, expected: &[&str]) {
    let texts = texts(svg);
    for text in expected {
        assert!(texts.contains(text), "no {text} among {texts:?}");
    }
}

/// The attributes of every `element` of a colour.
fn attributes(svg: &str, element: &str, colour: &str, name: &str) -> Vec<i32> {
    let elements = svg.lines().filter(|line| line.starts_with(&format!("<{element} ")));
    let coloured = elements.filter(|line| line.contains(&format!("=\"{colour}\"")));
    let value = |line: &str| {
        let (_, rest) = line.split_once(&format!(" {name}=\""))?;
        rest.split_once('"')?.0.parse().ok()
    };
    coloured.filter_map(value).collect()
}

/// The points of every line of a colour.
fn points(svg: &str, colour: &str) -> Vec<Vec<(i32, i32)>> {
    let lines = svg.lines().filter(|line| line.starts_with("<polyline "));
    let coloured = lines.filter(|line| line.contains(&format!("stroke=\"{colour}\"")));
    let point = |pair: &str| {
        let (x, y) = pair.split_once(',')?;
        Some((x.parse().ok()?, y.parse().ok()?))
    };
    let listed = coloured.filter_map(|line| line.split_once(" points=\"")?.1.split('"').next());
    listed
        .map(|listed| listed.split(' ').filter_map(point).collect())
        .collect()
}

fn refusal(drawn: anyhow::Result<()>) -> String {
    format!("{:#}", drawn.expect_err("it is refused"))
}

fn bar(name: &str, values: &[f64]) -> Bar {
    Bar {
        name: name.to_owned(),
        values: values.to_vec(),
    }
}

fn series(name: &str, points: &[(f64, f64)]) -> Series {
    Series {
        name: name.to_owned(),
        points: points.to_vec(),
    }
}

fn histogram(micros: impl IntoIterator<Item = u64>) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("three digits are allowed");
    for value in micros {
        histogram.record(value).expect("it grows by itself");
    }
    histogram
}

const BLUE: &str = "#0072B2";
const VERMILION: &str = "#D55E00";
const INK: &str = "#222222";

#[test]
fn lines_show_title_axes_names_and_points() {
    let file = File::new("lines");
    let given = [
        series("four workers & more", &[(1.0, 0.0), (10.0, 500.0), (100.0, 1_000.0)]),
        series("one worker", &[(1.0, 1_200.0)]),
    ];
    lines(&file.0, "Rate by batch", "events a batch", "events/s", true, &given).expect("it is drawn");
    let svg = file.text();
    assert_shows(
        &svg,
        &["Rate by batch", "events a batch", "events/s", "four workers &amp; more"],
    );
    assert_shows(&svg, &["one worker", "1", "10", "100", "0", "1,200"]);
    let drawn = points(&svg, BLUE).pop().expect("there is a curve");
    let [(x0, y0), (x1, y1), (x2, y2)] = drawn[..] else {
        panic!("three points, not {drawn:?}");
    };
    assert!((x1 - x0 - (x2 - x1)).abs() <= 1, "decades are equally wide: {drawn:?}");
    assert!(
        (y0 - y1 - (y1 - y2)).abs() <= 1,
        "twice the value is twice as high: {drawn:?}"
    );
    let circles = attributes(&svg, "circle", BLUE, "cx");
    assert_eq!(circles[1..], [x0, x1, x2], "a mark at each point, after the legend's");
}

#[test]
fn a_median_bar_is_as_long_as_its_value() {
    let file = File::new("bars");
    let given = [
        bar("bare client", &[20_000.0, 24_000.0, 19_000.0]),
        bar("end to end", &[10_000.0, 10_000.0, 1_000.0]),
        bar("one round", &[5_000.0]),
    ];
    bars(&file.0, "Events a second", "events/s", &given).expect("it is drawn");
    let svg = file.text();
    assert_shows(&svg, &["Events a second", "bare client", "end to end", "one round"]);
    assert_shows(
        &svg,
        &["events/s: median of the rounds, and from the least to the most"],
    );
    assert_shows(&svg, &["20,000", "10,000", "5,000"]);
    let lengths = attributes(&svg, "rect", BLUE, "width");
    let [long, half, quarter] = lengths[..] else {
        panic!("three bars, not {lengths:?}");
    };
    assert!(
        (long - 2 * half).abs() <= 1 && (long - 4 * quarter).abs() <= 2,
        "{lengths:?}"
    );
    let tops = attributes(&svg, "rect", BLUE, "y");
    assert!(tops.is_sorted(), "the first is the uppermost: {tops:?}");
}

#[test]
fn a_whisker_goes_from_the_least_to_the_most() {
    let file = File::new("whisker");
    let given = [bar("spread", &[100.0, 200.0, 400.0]), bar("alone", &[400.0])];
    bars(&file.0, "", "ms", &given).expect("it is drawn");
    let svg = file.text();
    let begin = attributes(&svg, "rect", BLUE, "x")[0];
    let length = attributes(&svg, "rect", BLUE, "width")[0]; // of 200
    let levels = points(&svg, INK).into_iter().filter(|line| line[0].1 == line[1].1);
    let whiskers: Vec<_> = levels.filter(|line| line[0].0 != begin).collect();
    let [whisker] = &whiskers[..] else {
        panic!("one whisker, not {whiskers:?}");
    };
    let (least, most) = (whisker[0].0 - begin, whisker[1].0 - begin);
    assert!(
        (least - length / 2).abs() <= 1 && (most - 2 * length).abs() <= 1,
        "{least} to {most}, of {length}"
    );
}

#[test]
fn stacked_parts_follow_each_other_and_have_their_total() {
    let file = File::new("stacked");
    let given = [
        ("sync".to_owned(), vec![60.0, 30.0]),
        ("async".to_owned(), vec![0.0, 1_500.0]),
    ];
    let drawn = stacked(&file.0, "CPU", "µs an event", &["postgres", "publisher"], &given);
    drawn.expect("it is drawn");
    let svg = file.text();
    assert_shows(&svg, &["CPU", "µs an event", "postgres", "publisher", "sync", "async"]);
    assert_shows(&svg, &["90", "1,500"]);
    // The legend's come first.
    let of = |colour, name| attributes(&svg, "rect", colour, name)[1..].to_vec();
    let (blue, orange) = (of(BLUE, "width"), of(VERMILION, "width"));
    assert!((blue[0] - 2 * orange[0]).abs() <= 2, "{blue:?} {orange:?}");
    assert_eq!(of(VERMILION, "x")[0], of(BLUE, "x")[0] + blue[0]);
    assert_eq!(blue[1], 0);
}

#[test]
fn latencies_show_each_percentile_in_milliseconds() {
    let file = File::new("latencies");
    // 1 ms, and one in a hundred 100 ms.
    let micros = (0..100_000).map(|number| if number % 100 == 0 { 100_000 } else { 1_000 });
    let given = [("a record alone".to_owned(), histogram(micros))];
    latencies(&file.0, "Input to outcome", &given).expect("it is drawn");
    let svg = file.text();
    assert_shows(
        &svg,
        &["Input to outcome", "a record alone", "percentile", "latency, ms"],
    );
    assert_shows(
        &svg,
        &["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "1", "10", "100"],
    );
    let marks = attributes(&svg, "circle", BLUE, "cy")[1..].to_vec();
    assert_eq!(marks.len(), 6, "one at each tick");
    assert!(marks[..4].iter().all(|y| *y == marks[0]), "1 ms up to 99 %: {marks:?}");
    assert!(
        marks[4] == marks[5] && marks[4] < marks[0],
        "100 ms from there on: {marks:?}"
    );
}

#[test]
fn a_curve_of_latencies_ends_where_its_values_do() {
    let file = File::new("few");
    let given = [
        ("few".to_owned(), histogram(1..=100)),
        ("many".to_owned(), histogram(0..50_000)),
    ];
    latencies(&file.0, "", &given).expect("it is drawn");
    let svg = file.text();
    let end = |colour| {
        let curve = points(&svg, colour).pop().expect("there is a curve");
        curve.last().expect("it has points").0
    };
    let marks = attributes(&svg, "circle", BLUE, "cx");
    assert_eq!(marks.last(), Some(&end(BLUE)), "the last mark is that of 99 %");
    assert!(end(BLUE) < end(VERMILION));
}

#[test]
fn what_is_empty_is_refused() {
    let file = File::new("empty");
    let path: &Path = &file.0;
    assert!(refusal(lines(path, "", "", "", false, &[])).ends_with("there is no series"));
    assert!(refusal(lines(path, "", "", "", false, &[series("a", &[])])).ends_with("series a is empty"));
    assert!(refusal(bars(path, "", "", &[])).ends_with("there is no bar"));
    assert!(refusal(bars(path, "", "", &[bar("a", &[1.0]), bar("b", &[])])).ends_with("bar b is empty"));
    assert!(refusal(stacked(path, "", "", &[], &[])).ends_with("there is no part"));
    assert!(refusal(stacked(path, "", "", &["p"], &[])).ends_with("there is no bar"));
    let uneven = [("a".to_owned(), vec![1.0])];
    let said = refusal(stacked(path, "", "", &["p", "q"], &uneven));
    assert!(said.ends_with("bar a has 1 values for 2 parts"), "{said}");
    assert!(refusal(latencies(path, "", &[])).ends_with("there is no series"));
    let empty = [("a".to_owned(), histogram([]))];
    assert!(refusal(latencies(path, "", &empty)).ends_with("series a is empty"));
    assert!(!path.exists(), "nothing is left of a plot that is refused");
}

#[test]
fn what_no_axis_can_show_is_refused() {
    let file = File::new("unshown");
    for value in [f64::NAN, f64::INFINITY, -1.0] {
        assert!(refusal(bars(&file.0, "", "", &[bar("a", &[1.0, value])])).contains("a has a value of"));
        let drawn = lines(&file.0, "", "", "", false, &[series("a", &[(1.0, value)])]);
        assert!(refusal(drawn).contains("a has a value of"));
        let given = [("a".to_owned(), vec![value])];
        assert!(refusal(stacked(&file.0, "", "", &["p"], &given)).contains("a has a value of"));
    }
    let at_zero = [series("a", &[(0.0, 1.0)])];
    assert!(refusal(lines(&file.0, "", "", "", true, &at_zero)).ends_with("a has an x of 0"));
    lines(&file.0, "", "", "", false, &at_zero).expect("a linear axis has a 0");
}

#[test]
fn an_error_names_the_file() {
    let said = refusal(bars(Path::new("/no/such/a.svg"), "", "", &[bar("a", &[0.0])]));
    assert!(
        said.starts_with("draw the plot /no/such/a.svg: write the file: "),
        "{said}"
    );
}

#[test]
fn names_get_the_room_that_they_need() {
    let file = File::new("room");
    let long = "a candidate with a name that says everything about how it was set up";
    bars(&file.0, "", "", &[bar(long, &[1.0])]).expect("it is drawn");
    let begin = attributes(&file.text(), "rect", BLUE, "x")[0];
    assert!(begin as usize > 8 * long.len(), "the bar begins at {begin}");
    let many: Vec<Series> = (0..9)
        .map(|number| series(&format!("{long} {number}"), &[(1.0, 1.0)]))
        .collect();
    lines(&file.0, "", "", "", false, &many).expect("it is drawn");
    assert!(texts(&file.text()).contains(&many[8].name.as_str()));
}
