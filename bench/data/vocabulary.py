"""The words of generated transcripts: word -> id in the vocabulary of bert-base-uncased, by polarity.

All ids are below 21,128 too, the size of bert-base-chinese's vocabulary, so that generated CH-SIMS tokens are valid
there (its generated transcripts are English words none the less).
"""

WORDS: dict[float, dict[str, int]] = {
    -1.0: {
        "terrible": 6659, "horrible": 9202, "awful": 9643, "worst": 5409, "hate": 5223, "disgusting": 19424,
        "pathetic": 17203, "waste": 5949, "disaster": 7071, "ugly": 9200, "stupid": 5236, "hated": 6283,
    },
    -0.5: {
        "bad": 2919, "poor": 3532, "boring": 11771, "slow": 4030, "weak": 5410, "disappointed": 9364, "sad": 6517,
        "wrong": 3308, "annoying": 15703, "tired": 5458, "dull": 10634, "mess": 6752,
    },
    0.0: {
        "the": 1996, "a": 1037, "and": 1998, "of": 1997, "to": 2000, "in": 1999, "it": 2009, "this": 2023,
        "that": 2008, "was": 2001, "is": 2003, "i": 1045, "you": 2017, "he": 2002, "she": 2016, "they": 2027,
        "we": 2057, "but": 2021, "so": 2061, "with": 2007, "for": 2005, "on": 2006, "at": 2012, "as": 2004,
        "about": 2055, "movie": 3185, "film": 2143, "story": 2466, "scene": 3496, "character": 2839, "actor": 3364,
        "director": 2472, "plot": 5436, "part": 2112, "time": 2051, "people": 2111, "way": 2126, "thing": 2518,
        "think": 2228, "know": 2113, "see": 2156, "watch": 3422, "said": 2056, "just": 2074, "really": 2428,
        "like": 2066, "um": 8529, "then": 2059, "now": 2085, "some": 2070, "all": 2035, "one": 2028, "two": 2048,
        "first": 2034, "last": 2197, "minutes": 2781, "hour": 3178, "book": 2338, "music": 2189, "camera": 4950,
    },
    0.5: {
        "good": 2204, "nice": 3835, "fine": 2986, "fun": 4569, "cool": 4658, "smart": 6047, "sweet": 4086,
        "funny": 6057, "pretty": 3492, "interesting": 5875, "enjoyed": 5632, "decent": 11519,
    },
    1.0: {
        "great": 2307, "amazing": 6429, "excellent": 6581, "best": 2190, "love": 2293, "perfect": 3819,
        "wonderful": 6919, "awesome": 12476, "fantastic": 10392, "brilliant": 8235, "loved": 3866, "beautiful": 3376,
    },
}  # fmt: skip
CLS, SEP = 101, 102  # special tokens of the BERT vocabularies
