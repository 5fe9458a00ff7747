"""Chinese characters are drawn, each as itself: no empty boxes."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from fewshot_lib.tools.machine import find_chinese_font

pytestmark = pytest.mark.browser

#: How a text looks: the pixels of a canvas, as a data address.
DRAWN = """(text) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [48, 48];
  const pen = canvas.getContext("2d");
  pen.font = "32px sans-serif";
  pen.fillText(text, 4, 36);
  return canvas.toDataURL();
}"""
#: No font has this character: it is drawn as what stands for a missing one.
NOBODYS = "\U0010fffd"


def test_there_is_a_font_with_chinese_characters() -> None:
    assert find_chinese_font(), "apt install fonts-wqy-zenhei"


def test_chinese_characters_are_drawn_each_as_itself(chromium: Browser) -> None:
    page = chromium.new_page()
    page.set_content('<html lang="zh-CN"><p>原型</p></html>')
    drawn = {text: page.evaluate(DRAWN, text) for text in (*"原型掩码支持集，。", NOBODYS, " ")}
    page.close()
    assert len(set(drawn.values())) == len(drawn), "some look the same, as empty boxes do"
