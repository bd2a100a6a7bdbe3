// What is wrong with a page to look at: too wide, too pale (WCAG 2.2, 1.4.3: 4.5 to 1), too small to touch.
(() => {
  const parts = (color) => color.match(/[\d.]+/g).map(Number);
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = (color) => {
    const [red, green, blue] = parts(color).map((value) => linear(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (parts(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) found.push(`${width} px wide`);
  for (const element of document.querySelectorAll("main *")) {
    const color = getComputedStyle(element).color;
    const box = element.getBoundingClientRect();
    if (!box.width) continue;
    const [more, less] = [light(color), light(behind(element))].sort((x, y) => y - x);
    if ((more + 0.05) / (less + 0.05) < 4.5) found.push(`${element.outerHTML}: ${color} on ${behind(element)}`);
    if (["INPUT", "BUTTON"].includes(element.tagName) && box.height < 44) {
      found.push(`${element.outerHTML}: ${box.height} px high`);
    }
  }
  return found;
})();
