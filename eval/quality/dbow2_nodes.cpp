// The node of each code in a vocabulary, as ORB-SLAM asks DBoW2 for it: ./dbow2_nodes VOCABULARY.txt < CODES > NODES
//
// CODES are 32 bytes each; NODES is a line for each code, empty where its word weighs nothing and DBoW2 leaves it out.

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "Thirdparty/DBoW2/DBoW2/FORB.h"
#include "Thirdparty/DBoW2/DBoW2/TemplatedVocabulary.h"

int main(int, char** arguments) {
    const int levels_up = 4;  // as in the ComputeBoW of its Frame and KeyFrame
    DBoW2::TemplatedVocabulary<DBoW2::FORB::TDescriptor, DBoW2::FORB> vocabulary;
    if (!vocabulary.loadFromTextFile(arguments[1])) return 1;
    std::vector<cv::Mat> codes;
    for (cv::Mat code(1, 32, CV_8U); std::fread(code.data, 1, 32, stdin) == 32;) codes.push_back(code.clone());
    DBoW2::BowVector bag;
    DBoW2::FeatureVector nodes;
    vocabulary.transform(codes, bag, nodes, levels_up);
    std::vector<std::string> lines(codes.size());
    for (const auto& node : nodes)
        for (unsigned row : node.second) lines[row] = std::to_string(node.first);
    for (const auto& line : lines) std::cout << line << '\n';
}
