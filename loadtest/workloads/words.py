"""Common English words, of which prompts are made. Most tokenizers have a token for each, with a space before it."""

_TEXT = """
the and for are but not you all any can had her was one our out day get has him his how man new now old see two
way who boy did its let put say she too use that with have this will your from they know want been good much
some time very when come here just like long make many more only over such take than them well were what year
back call each even find give hand high keep last left life live look made most move must name need next open
part play said same seem show side tell turn wait walk went work about after again began being below could every
first found great group house large later learn never often other place plant point right small sound spell
still study their there these thing think three under water where which while world would write
"""

WORDS = tuple(_TEXT.split())
"""All different."""
