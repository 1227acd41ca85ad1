// Paper does not scroll: print all lanes, in strips that fit on a page, each with the axis.

const STRIP = 40; // lanes
const PAPER_WIDTH = 1000; // pixels
const paper = element("paper");
let closed = []; // the details that are open for printing only

function drawPaper() {
  isPrinting = true;
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const one of closed) one.open = true;
  const { lanes } = arranged(view, { ...data, calm: null });
  const strips = [];
  for (let first = 0; first < lanes.length; first += STRIP) {
    const strip = { ...view, lanes: lanes.slice(first, first + STRIP) };
    const canvas = document.createElement("canvas");
    drawLanes(canvas, strip, PAPER_WIDTH, TOP + strip.lanes.length * ROW, 0);
    strips.push(canvas);
  }
  paper.replaceChildren(...strips);
  drawCounters(view, PAPER_WIDTH);
  drawLegend();
}

function drawScreen() {
  isPrinting = false;
  for (const one of closed) one.open = false;
  paper.replaceChildren();
  drawLegend();
  draw();
}

window.addEventListener("beforeprint", drawPaper);
window.addEventListener("afterprint", drawScreen);
