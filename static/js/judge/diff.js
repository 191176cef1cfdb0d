// Which words two texts share, in order; and marks on those that only one of them has.
//
// Where both texts are short, the longest common subsequence by its table. Where they are long, words
// that occur once in each text and stand in the same order are anchors (patience diff), and what lies
// between them is compared by itself; a stretch without anchors that is still too long counts as
// different. So a text of a megabyte costs no more than one can wait for.
const TABLE = 4_000_000; // cells of the table, at most

export function common(a, b) {
  const inA = new Uint8Array(a.length), inB = new Uint8Array(b.length);
  const work = [[0, a.length, 0, b.length]];
  while (work.length) {
    let [i, iEnd, j, jEnd] = work.pop();
    while (i < iEnd && j < jEnd && a[i] === b[j]) inA[i++] = inB[j++] = 1;
    while (i < iEnd && j < jEnd && a[iEnd - 1] === b[jEnd - 1]) inA[--iEnd] = inB[--jEnd] = 1;
    const n = iEnd - i, m = jEnd - j;
    if (!n || !m) continue;
    if ((n + 1) * (m + 1) <= TABLE) {
      table(a, b, i, n, j, m, inA, inB);
      continue;
    }
    const found = anchors(a, b, i, iEnd, j, jEnd);
    if (!found.length) continue;
    let [fromA, fromB] = [i, j];
    for (const [p, q] of found) {
      inA[p] = inB[q] = 1;
      work.push([fromA, p, fromB, q]);
      [fromA, fromB] = [p + 1, q + 1];
    }
    work.push([fromA, iEnd, fromB, jEnd]);
  }
  return [inA, inB];
}

function table(a, b, i, n, j, m, inA, inB) {
  const width = m + 1, length = new Uint16Array((n + 1) * width);
  for (let p = n - 1; p >= 0; p--)
    for (let q = m - 1; q >= 0; q--)
      length[p * width + q] = a[i + p] === b[j + q]
        ? length[(p + 1) * width + q + 1] + 1
        : Math.max(length[(p + 1) * width + q], length[p * width + q + 1]);
  for (let p = 0, q = 0; p < n && q < m;) {
    if (a[i + p] === b[j + q]) inA[i + p++] = inB[j + q++] = 1;
    else if (length[(p + 1) * width + q] >= length[p * width + q + 1]) p++;
    else q++;
  }
}

function anchors(a, b, i, iEnd, j, jEnd) {
  const once = (words, from, to) => {
    const at = new Map();
    for (let p = from; p < to; p++) at.set(words[p], at.has(words[p]) ? -1 : p);
    return at;
  };
  const inB = once(b, j, jEnd), pairs = [];
  for (const [word, p] of once(a, i, iEnd)) {
    const q = inB.get(word);
    if (p >= 0 && q >= 0) pairs.push([p, q]);
  }
  // The longest run that rises in both: `piles` holds the smallest end of each length.
  const piles = [], before = new Map();
  for (const pair of pairs) {
    let [low, high] = [0, piles.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (piles[middle][1] < pair[1]) low = middle + 1;
      else high = middle;
    }
    before.set(pair, piles[low - 1]);
    piles[low] = pair;
  }
  const run = [];
  for (let pair = piles.at(-1); pair; pair = before.get(pair)) run.push(pair);
  return run.reverse();
}

const segmenter = Intl.Segmenter && new Intl.Segmenter(undefined, { granularity: "word" });

function* wordsOf(text) {
  if (segmenter) {
    for (const { segment, index } of segmenter.segment(text)) if (segment.trim()) yield [index, segment];
  } else for (const found of text.matchAll(/[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu)) yield [found.index, found[0]];
}

function read(element) {
  const words = [], walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    for (const [start, word] of wordsOf(node.data)) words.push({ node, start, end: start + word.length, word });
  return words;
}

function mark(words, shared, tag) {
  // From the end, so that what is split off never moves what is still to be marked.
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
  const a = read(before), b = read(after);
  const [inA, inB] = common(a.map((one) => one.word), b.map((one) => one.word));
  mark(a, inA, "del");
  mark(b, inB, "ins");
  const shared = inA.reduce((sum, one) => sum + one, 0);
  return { shared, before: a.length - shared, after: b.length - shared };
}
