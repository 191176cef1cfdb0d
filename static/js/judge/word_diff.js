// Which words two texts share, in order, and marks on those that only one of them has. By jsdiff.
import "../../vendor/diff-9.0.0.min.js"; // sets globalThis.Diff

const TIMEOUT = 1000; // ms; texts that take longer count as different from end to end

// [inA, inB]: for each word 1 if both texts have it, 0 if only one does.
export function common(a, b) {
  const inA = new Uint8Array(a.length), inB = new Uint8Array(b.length);
  let i = 0, j = 0;
  for (const { added, removed, count } of globalThis.Diff.diffArrays(a, b, { timeout: TIMEOUT }) ?? []) {
    if (!added && !removed) {
      inA.fill(1, i, i + count);
      inB.fill(1, j, j + count);
    }
    if (!added) i += count;
    if (!removed) j += count;
  }
  return [inA, inB];
}

const segmenter = Intl.Segmenter && new Intl.Segmenter(undefined, { granularity: "word" });

function* wordsOf(text) {
  if (segmenter) {
    for (const { segment, index } of segmenter.segment(text)) if (segment.trim()) yield [index, segment];
  } else for (const match of text.matchAll(/[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu)) yield [match.index, match[0]];
}

function wordsIn(element) {
  const words = [], walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    for (const [start, word] of wordsOf(node.data)) words.push({ node, start, end: start + word.length, word });
  return words;
}

function mark(words, shared, tag) {
  // From the end, so that a split never moves the words that are still to be marked.
  for (let last = words.length - 1; last >= 0; last--) {
    if (shared[last]) continue;
    let first = last;
    while (first > 0 && !shared[first - 1] && words[first - 1].node === words[last].node) first--;
    const range = document.createRange();
    range.setStart(words[first].node, words[first].start);
    range.setEnd(words[last].node, words[last].end);
    range.surroundContents(document.createElement(tag));
    last = first;
  }
}

// Marks in `before` what `after` lacks (<del>) and in `after` what `before` lacks (<ins>); how many
// words they share and how many only one of them has.
export function markDifferences(before, after) {
  const a = wordsIn(before), b = wordsIn(after);
  const [inA, inB] = common(a.map(({ word }) => word), b.map(({ word }) => word));
  mark(a, inA, "del");
  mark(b, inB, "ins");
  const shared = inA.reduce((sum, isShared) => sum + isShared, 0);
  return { shared, before: a.length - shared, after: b.length - shared };
}

// [[kind, text], …] in order; kind is "same", "out" or "in".
export function changes(before, after) {
  const parts = globalThis.Diff.diffWordsWithSpace(before, after, { intlSegmenter: segmenter || undefined, timeout: TIMEOUT });
  if (!parts) return [["out", before], ["in", after]];
  return readable(parts.map(({ added, removed, value }) => [removed ? "out" : added ? "in" : "same", value]));
}

// Adjacent changes with only spaces between them read as one: first all that was removed, then all
// that was added.
function readable(runs) {
  const merged = [];
  let out = "", into = "";
  const flush = () => {
    if (out) merged.push(["out", out]);
    if (into) merged.push(["in", into]);
    out = into = "";
  };
  runs.forEach(([kind, text], at) => {
    if (kind === "out") out += text;
    else if (kind === "in") into += text;
    else if ((out || into) && at < runs.length - 1 && /^\s+$/.test(text)) { out += text; into += text; }
    else { flush(); merged.push([kind, text]); }
  });
  flush();
  return merged;
}

// The difference as DOM nodes: <del> and <ins>, readable without color.
export function shownChanges(before, after) {
  return changes(before, after).map(([kind, text]) => {
    if (kind === "same") return document.createTextNode(text);
    const mark = document.createElement(kind === "out" ? "del" : "ins");
    mark.textContent = text;
    return mark;
  });
}
